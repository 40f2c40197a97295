"""What a person can mend: errors whose message is one line that says how."""

_LONGEST_QUOTE = 160  # characters


class UserError(Exception):
    """Ends a program with status 1 and this one line: what was wrong, what was
    expected, what to do."""


# What ends a program with a line: also a full disk, or a folder that is read-only.
EXPECTED = (UserError, OSError)


def first_line(error: BaseException) -> str:
    """What a one-line message quotes of another library's error."""
    line = next(iter(str(error).splitlines()), type(error).__name__)
    return line if len(line) <= _LONGEST_QUOTE else line[:_LONGEST_QUOTE] + " ..."
