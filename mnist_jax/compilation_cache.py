"""Compiled programs kept on disk by JAX, so that a later process need not compile.

Here JAX's cache is given a folder, a size, and what a process that was killed over an
entry left there is taken away. Entries are compressed with a checksum, named by a
digest of program, versions, flags and kind of processor, and evicted by JAX itself.
"""

import os
from pathlib import Path

import mnist_jax

MAX_BYTES = 256 * 2**20
_MIN_COMPILE_SECONDS = 0.1


def start(root: Path | None = None) -> None:
    """Keeps compiled programs for later processes, and uses those kept before.

    Does nothing where JAX_COMPILATION_CACHE_DIR already names a folder, where the
    folder cannot be written, or where XLA would report each program from the cache as
    an error.

    Args:
      root: where to keep them; by default mnist_jax in XDG_CACHE_HOME or ~/.cache.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR") or not mnist_jax.XLA_IS_QUIET:
        return
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = (root or home / "mnist_jax") / "programs"
        folder.mkdir(parents=True, exist_ok=True)
        for entry in folder.glob("*-cache"):
            # JAX writes this second file last, and needs it to evict.
            accessed = entry.name.removesuffix("-cache") + "-atime"
            if not entry.with_name(accessed).exists():
                entry.unlink(missing_ok=True)
        (folder / ".lockfile").touch()  # may be written?
    except (OSError, RuntimeError):  # RuntimeError: this user has no home
        return
    import jax  # not at the top: programs that use no JAX start without

    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
    jax.config.update(
        "jax_persistent_cache_min_compile_time_secs", _MIN_COMPILE_SECONDS
    )
