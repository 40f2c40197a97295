"""SIGINT and SIGTERM: they end a program at once, or are noted where it stops in order.

No handler here raises. Python drops an exception that reaches a callback of its garbage
collector, libraries catch it, and an import that it passes is left half done. So from
`listen` on, the first line of a program, a signal takes away what is half written, says
one line and ends the process; inside `noted` it is only kept, for a loop that saves its
work and raises `Interrupted` itself.
"""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

_NUMBERS = (signal.SIGINT, signal.SIGTERM)

_received = 0  # the last signal that was noted
_advice: list[str] = []  # what a person may do after a stop, the innermost last
_undo: list[Callable[[], None]] = []
_before: dict[int, Any] = {}  # the handlers outside of `noted`


class Interrupted(BaseException):
    """A signal stopped the work in order; see `signal_number`.

    Like KeyboardInterrupt no Exception: what it passes must not take it for an error.
    """

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.signal_number = signal_number


def listen() -> None:
    """From here on SIGINT and SIGTERM end this process, with status 128 + number.

    A signal that is ignored, as in a background job of a shell, stays so.
    """
    for number in _NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end_at_once)


@contextlib.contextmanager
def advice(text: str) -> Iterator[None]:
    """What a person is told after "stopped by SIGINT; ", the innermost alone.

    Also a decorator.
    """
    _advice.append(text)
    try:
        yield
    finally:
        _advice.pop()


def usual_advice() -> str:
    """The outermost, which is the program's own."""
    return _advice[0] if _advice else ""


@contextlib.contextmanager
def undone_by(undo: Callable[[], None]) -> Iterator[None]:
    """Calls `undo` where a signal ends the process, to take away what is half done."""
    _undo.append(undo)
    try:
        yield
    finally:
        _undo.remove(undo)  # of any thread


@contextlib.contextmanager
def temporary_folder(**where: Any) -> Iterator[Path]:
    """`tempfile.TemporaryDirectory`, which a signal takes away, too."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True, **where) as name:
        with undone_by(lambda: shutil.rmtree(name, ignore_errors=True)):
            yield Path(name)


@contextlib.contextmanager
def noted() -> Iterator[Callable[[], int]]:
    """SIGINT and SIGTERM are only noted inside; a SIGINT after that is not.

    One that was noted and led to no exception is delivered at the end.

    Yields:
      () -> the number of the last signal, 0 for none; also of one that came inside of a
      context around this one.
    """
    global _received
    # Python allows handlers in the main thread only.
    if _before or threading.current_thread() is not threading.main_thread():
        yield lambda: _received
        return
    for number in _NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            _before[number] = signal.signal(number, _note)
    try:
        yield lambda: _received
        unanswered = _received
    except BaseException:
        unanswered = 0
        raise
    finally:
        for number, handler in _before.items():
            signal.signal(number, handler)
        _before.clear()
        _received = 0
    if unanswered:
        signal.raise_signal(unanswered)


def interruptible(function: Callable[[], Any]) -> Any:
    """What `function` returns or raises; a signal may end the process meanwhile.

    Python calls handlers in the main thread alone, between two of its instructions, and
    to have XLA compile is one instruction of many seconds: another thread does it.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or _end_at_once not in map(signal.getsignal, _NUMBERS):
        return function()
    import concurrent.futures  # not at the top: signals wait for all that is there

    done = concurrent.futures.Future()

    def compute():
        try:
            done.set_result(function())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=compute, daemon=True).start()
    return done.result()


def _note(number, frame) -> None:
    global _received
    _received = number
    signal.signal(signal.SIGINT, _before.get(signal.SIGINT, signal.SIG_IGN))


def _end_at_once(number, frame) -> NoReturn:
    for one in _NUMBERS:
        signal.signal(one, signal.SIG_IGN)
    for undo in reversed(_undo):
        with contextlib.suppress(Exception):
            undo()
    # Not by `print`: this may have come in the middle of one.
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    text = f"stopped by {signal.Signals(number).name}"
    if _advice and _advice[-1]:
        text += f"; {_advice[-1]}"
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode(errors="backslashreplace"))
    os._exit(128 + number)
