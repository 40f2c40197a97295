"""How a program ends: one line and a status, never a traceback."""

import os
import signal
import sys
import threading
import time
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
        # Libraries raise again, where a result is asked for, what their threads print.
        threading.excepthook = sys.unraisablehook = _note
        # A file's name may have letters that the terminal lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
        if len(argv) > 1:
            sys.exit(f"error: {argv[1]!r} is not a flag: write --name=value")
        try:
            body()
        except user_errors as error:
            _fail(f"error: {_one_line(error)}")
        except train.Interrupted as stop:
            print(f"{stop}; {go_on}", file=sys.stderr)
            sys.exit(128 + stop.signal_number)
        except KeyboardInterrupt:
            print(f"stopped; {go_on}", file=sys.stderr)
            sys.exit(128 + signal.SIGINT)

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
        return f"{where}: {error.strerror}: give another place, or make room there"
    return " ".join(str(error).split())


def _fail(line: str) -> NoReturn:
    if not parallel.is_one_of_several():
        sys.exit(line)
    print(line, file=sys.stderr, flush=True)
    sys.stdout.flush()
    if parallel.is_first():
        # The others are ended without a word when this process is gone: they have the
        # time to say why themselves.
        time.sleep(2)
    # In order JAX would wait here for the others, which may wait for this one.
    os._exit(1)
