"""How much memory this process takes. Needs nothing but Python's own library."""

import contextlib
import ctypes
import resource
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path


def reset_peak() -> None:
    """Makes Linux forget this process's peak, which compilations came before.

    Elsewhere the peak stays, and a run that needs less shows as too much.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
    if trim:
        trim(0)  # what was left free is tens of MiB, now more, now less
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def peak_bytes() -> int:
    """The largest resident set of this process so far."""
    # Linux's `getrusage` counts the process that started this one, too.
    if peak := _status_bytes("VmHWM"):
        return peak
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def resident_bytes() -> int:
    """The resident set of this process; where the system does not tell, its peak."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_bytes()
    # The peak is kept less exactly and can lag behind.
    return min(pages * resource.getpagesize(), peak_bytes())


def anonymous_bytes() -> int:
    """Of the resident set what no file can be read for again; 0 where unknown."""
    return _status_bytes("RssAnon")


def _status_bytes(name: str) -> int:
    """An entry of Linux's status of this process; 0 where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    found = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return 1024 * int(found[0]) if found else 0


@contextlib.contextmanager
def highest(measure: Callable[[], int]) -> Iterator[Callable[[], int]]:
    """Yields a function that gives the highest of what `measure` gave so far.

    A thread asks every hundredth of a second, until the context ends.
    """
    values, ended = [measure()], threading.Event()

    def watch():
        while not ended.wait(0.01):
            values[0] = max(values[0], measure())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lambda: values[0]
    finally:
        ended.set()
        thread.join()
