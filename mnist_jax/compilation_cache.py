"""Compiled programs kept on disk, so that a later process need not compile them.

JAX has such a cache; it is switched on here in a folder of the user's. What JAX leaves
open is done around it: a checksum beside each program, without which a program is
thrown away, because the process that wrote it may have been killed over it; a folder
for each kind of processor, because a program may use instructions that another lacks;
and a limit to the size.
"""

import atexit
import hashlib
import os
import platform
from pathlib import Path

import jax
import jaxlib

MAX_BYTES = 256 * 2**20
_MIN_COMPILE_SECONDS = 0.1
_SUM = ".sha256"


def start(root: Path | None = None) -> None:
    """Keeps compiled programs for later processes, and uses those kept before.

    Does nothing where JAX_COMPILATION_CACHE_DIR already names a folder, or where the
    folder cannot be written.

    Args:
      root: where to keep them; by default mnist_jax in XDG_CACHE_HOME or ~/.cache.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = (root or home / "mnist_jax") / _kind_of_machine()
        folder.mkdir(parents=True, exist_ok=True)
        _clean(folder)
    except (OSError, RuntimeError):  # RuntimeError: this user has no home
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update(
        "jax_persistent_cache_min_compile_time_secs", _MIN_COMPILE_SECONDS
    )
    atexit.register(seal)


def seal() -> None:
    """Writes the checksums of programs that have none; also done when Python ends."""
    folder = jax.config.jax_compilation_cache_dir
    if not folder or os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    for program in _programs(Path(folder)):
        sum_path = program.with_name(program.name + _SUM)
        try:
            if not sum_path.exists():
                sum_path.write_bytes(_checksum(program))
        except OSError:
            pass  # a full disk, or another process cleaned up: it is compiled again


def _clean(folder: Path) -> None:
    """Removes damaged and unsealed programs, and the oldest beyond `MAX_BYTES`."""
    size = 0
    programs = sorted(_programs(folder), key=lambda p: p.stat().st_mtime, reverse=True)
    for program in programs:
        sum_path = program.with_name(program.name + _SUM)
        size += program.stat().st_size
        sound = sum_path.exists() and sum_path.read_bytes() == _checksum(program)
        if not sound or size > MAX_BYTES:
            program.unlink(missing_ok=True)
            sum_path.unlink(missing_ok=True)


def _programs(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix != _SUM]


def _checksum(program: Path) -> bytes:
    return hashlib.sha256(program.read_bytes()).hexdigest().encode()


def _kind_of_machine() -> str:
    """A name for all that a program depends on and that JAX's own key leaves out."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features = next(
            line for line in lines if line.startswith(("flags", "Features"))
        )
    except (OSError, StopIteration):
        features = platform.processor()
    parts = (jax.__version__, jaxlib.__version__, platform.machine(), features)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
