"""How much memory this process takes. Needs nothing but Python's own library."""

import ctypes
import resource
import sys
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
    """The largest resident set of this process so far.

    Linux counts that of the process that started it too, which never trains, so it is
    smaller.
    """
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
