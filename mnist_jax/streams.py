"""Standard output and standard error, as a shell may leave them to a program."""

import os
import sys


def open_closed() -> None:
    """Opens those that are closed, as by `2>&-`, on nothing; call it first.

    Else the next file that is opened takes the place of a closed one, and what is
    printed would be written to it.
    """
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        try:
            os.fstat(number)
        except OSError:
            nothing = os.open(os.devnull, os.O_RDWR)  # takes the lowest number
            mode = "w" if number else "r"
            setattr(sys, name, os.fdopen(nothing, mode, closefd=False))


def take_any_text() -> None:
    """A file's name may have letters that the terminal lacks."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")


def flush() -> None:
    """Writes what is printed, so that a full disk is an error as any other."""
    try:
        sys.stdout.flush()
    except OSError:
        drop_output()
        raise


def drop_output() -> None:
    """Keeps Python from writing what is left at its end, with a traceback."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)
