"""How a study starts and ends: as `launch.py` does."""

import signal
import sys
from collections.abc import Callable, Sequence

from absl import logging

from mnist_jax import compilation_cache, train


def main_of(
    study: Callable[[], None], go_on: str = "the same command goes on from there"
) -> Callable[[Sequence[str]], None]:
    """The `main` that absl's `app.run` takes, of a study that reads its own flags.

    An error of the user ends it with one line and status 1, SIGTERM and Ctrl-C with
    the word `go_on`.
    """

    def main(argv: Sequence[str]) -> None:
        if len(argv) > 1:
            sys.exit(f"error: {argv[1]!r} is not a flag: write --name=value")
        logging.set_verbosity(logging.WARNING)  # the libraries report each step
        signal.signal(signal.SIGTERM, _terminate)
        compilation_cache.start()
        try:
            study()
        except train.USER_ERRORS as error:
            sys.exit(f"error: {error}")
        except train.Interrupted as stop:
            print(f"stopped; {go_on}", file=sys.stderr)
            sys.exit(128 + stop.signal_number)
        except KeyboardInterrupt:
            print(f"stopped; {go_on}", file=sys.stderr)
            sys.exit(128 + signal.SIGINT)

    return main


def _terminate(number, frame):
    raise train.Interrupted("stopped by SIGTERM", number)
