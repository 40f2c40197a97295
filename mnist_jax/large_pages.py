"""Large pages of memory, for long sequences; docs/sequences.md has what they gain."""

import os
import sys
from pathlib import Path

_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_VARIABLE, _VALUE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"
_FIRST_GLIBC = (2, 35)  # that knows it


def restart_with_them() -> None:
    """Starts this program anew where Linux gives large pages to those who ask.

    glibc asks if an environment variable says so when the process starts. Returns where
    that is nothing new: the variable is set, Linux gives them to all or to none, or
    there is no glibc that asks; and where the process was started as another program,
    and has the command line from there.
    """
    spec = sys.modules["__main__"].__spec__
    own = [spec.name if spec else sys.argv[0], *sys.argv[1:]]
    is_own = sys.orig_argv[-len(own) :] == own
    if _VARIABLE in os.environ or not is_own or not _on_request():
        return
    os.environ[_VARIABLE] = _VALUE
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606


def _on_request() -> bool:
    try:
        is_on_request = "[madvise]" in _SETTING.read_text()
        name, version = os.confstr("CS_GNU_LIBC_VERSION").split()
    except (OSError, ValueError, AttributeError):  # not Linux, or another C library
        return False
    numbers = tuple(int(part) for part in version.split(".")[:2])
    return is_on_request and name == "glibc" and numbers >= _FIRST_GLIBC
