"""The image files that a person means by files, folders and patterns."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from mnist_jax.images.files import SUFFIXES, ImageError, expand_user


def find_files(given: Sequence[str]) -> tuple[list[str], list[ImageError]]:
    """Expands folders and patterns.

    Args:
      given: files, which stay as they are; folders, which stand for the image files in
        them and in their sub-folders, hidden ones left out; and patterns like
        `scans/*.png` or `scans/**/*.png`.

    Returns:
      The files, those of a folder or pattern in the order of their names; and an error
      for each folder or pattern that stands for none.
    """
    found, errors = [], []
    for one in given:
        path = expand_user(Path(one))
        # os.path: False for a name that is too long.
        if os.path.isdir(path):
            files = [str(x) for x in sorted(path.rglob("*")) if _is_image(x, path)]
            missing = f"{one}: no image file in this folder ({' '.join(SUFFIXES)})"
        elif not os.path.exists(path) and glob.has_magic(one):
            files = sorted(glob.glob(str(path), recursive=True))
            files = [x for x in files if not Path(x).is_dir()]
            missing = f"{one}: no file has such a name"
        else:
            files, missing = [one], ""
        if not files:
            errors.append(ImageError(f"{missing}: check the folder's name"))
        found += files
    return found, errors


def _is_image(path: Path, folder: Path) -> bool:
    parts = path.relative_to(folder).parts
    is_hidden = any(part.startswith(".") for part in parts)
    return path.suffix.lower() in SUFFIXES and not is_hidden and path.is_file()
