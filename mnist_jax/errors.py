"""What a person can mend: errors whose message is one line that says how."""

from collections.abc import Sequence

_LONGEST_QUOTE = 160  # characters


class UserError(Exception):
    """Ends a program with status 1 and this one line: what was wrong, what was
    expected, what to do."""


class UserErrors(UserError):
    """Several errors, each of which is told in a line of its own."""

    def __init__(self, errors: Sequence[UserError]):
        super().__init__("; ".join(map(str, errors)))
        self.errors = tuple(errors)


# What ends a program with a line: also a full disk, or a folder that is read-only.
EXPECTED = (UserError, OSError)


def first_line(error: BaseException) -> str:
    """What a one-line message quotes of another library's error."""
    line = next(iter(str(error).splitlines()), type(error).__name__)
    return line if len(line) <= _LONGEST_QUOTE else line[:_LONGEST_QUOTE] + " ..."
