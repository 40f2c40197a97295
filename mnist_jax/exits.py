"""How a process ends: in order, or at once where others may wait for it."""

import os
import sys
import time
from collections.abc import Callable
from typing import NoReturn

_is_main: Callable[[], bool] | None = None


def join_group(is_main: Callable[[], bool]) -> None:
    """Makes this process one of several; `is_main` says whether it is the main one."""
    global _is_main
    _is_main = is_main


def is_in_group() -> bool:
    """Whether this process was asked to be one of several."""
    return _is_main is not None


def hard_exit(status: int) -> NoReturn:
    """Ends this process. An orderly end would wait for others that may wait for it."""
    if _is_main is None:
        sys.exit(status)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if _is_main():
        # The others are ended without a word when this process is gone: it gives them
        # the time to say why themselves.
        time.sleep(2)
    os._exit(status)
