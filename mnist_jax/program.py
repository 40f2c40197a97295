"""How a program ends: one line and a status, never a traceback."""

import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from absl import logging

from mnist_jax import parallel, train


def main_of(
    body: Callable[[], None],
    go_on: str,
    user_errors: tuple[type[Exception], ...] = train.USER_ERRORS,
) -> Callable[[Sequence[str]], None]:
    """The `main` that absl's `app.run` takes.

    Args:
      body: the program; reads its own flags.
      go_on: what to do after Ctrl-C or SIGTERM.
      user_errors: end the program with their message and status 1.
    """

    def main(argv: Sequence[str]) -> None:
        signal.signal(signal.SIGTERM, _terminate)
        # The libraries report each of their steps at level INFO, absl's default.
        logging.set_verbosity(logging.WARNING)
        # Orbax raises again, in this thread, what its own threads would print.
        threading.excepthook = sys.unraisablehook = _note
        if sys.stdout is not None:
            # A file's name may have letters that the terminal lacks.
            sys.stdout.reconfigure(errors="backslashreplace")
        if len(argv) > 1:
            sys.exit(f"error: {argv[1]!r} is not a flag: write --name=value")
        try:
            body()
        except user_errors as error:
            _end(1, f"error: {_one_line(error)}")
        except train.Interrupted as stop:
            _end(128 + stop.signal_number, f"{stop}; {go_on}")
        except KeyboardInterrupt:
            _end(128 + signal.SIGINT, f"stopped; {go_on}")
        except Exception:
            if not parallel.is_one_of_several():
                raise
            _end(1, traceback.format_exc())

    return main


def _terminate(number, frame) -> NoReturn:
    """Ends the program in order where the training loop does not listen."""
    raise train.Interrupted("stopped by SIGTERM", number)


def _note(unraised) -> None:
    logging.info("in another thread: %s", unraised.exc_value)


def _one_line(error: Exception) -> str:
    """The message; what the system says of a file, with the file first."""
    if isinstance(error, OSError) and error.strerror:
        where = error.filename or "the output"
        remedy = "make room there, or give another place"
        return f"{where}: {error.strerror}: {remedy}"
    return " ".join(str(error).split())


def _end(status: int, text: str) -> NoReturn:
    print(text, file=sys.stderr, flush=True)
    parallel.leave(status)
