"""Drawings that a person keeps, in a folder for each class."""

import itertools
import re
from pathlib import Path

from mnist_jax.storage.records import write_atomically


def keep(folder: Path, class_name: str, png: bytes) -> Path:
    """Writes a drawing to the next free number of its class.

    Args:
      folder: of all drawings.
      class_name: becomes a sub-folder; what no folder's name may hold becomes '-'.
      png: the file's content.

    Returns:
      The file written, as `folder`/3/0012.png.

    Raises:
      OSError: it cannot be written.
    """
    of_class = folder / re.sub(r"[/\\:\0]|^\.", "-", class_name)
    of_class.mkdir(parents=True, exist_ok=True)
    used = {path.stem for path in of_class.glob("*.png")}
    number = next(n for n in itertools.count(len(used) + 1) if f"{n:04}" not in used)
    path = of_class / f"{number:04}.png"
    write_atomically(path, png)
    return path
