"""Files that are whole or not there."""

import os
import tempfile
from pathlib import Path

from mnist_jax import signals


def write_atomically(path: Path, content: bytes) -> None:
    """Writes `content` beside `path`, flushes it to disk and renames it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    beside = Path(name)
    with signals.undone_by(lambda: beside.unlink(missing_ok=True)):
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes private files; records are as readable as any other.
            umask = os.umask(0)
            os.umask(umask)
            beside.chmod(0o666 & ~umask)
            beside.replace(path)
        except BaseException as error:
            beside.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno and not error.filename:
                error.filename = str(path)  # of a full disk the system names none
            raise
