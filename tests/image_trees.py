"""Folders of image files, a sub-folder for each class, from scikit-learn's digits."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mnist_jax.data import digits

NUMERALS = ("zero", "one", "two", "three", "four", "five")


@functools.cache
def _digits():
    import sklearn.datasets

    return sklearn.datasets.load_digits()


def drawn(digit: int, number: int) -> Image.Image:
    """The digit's image of that number, dark on light, 36x36."""
    found = _digits()
    small = found.images[found.target == digit][number].astype(np.uint8)
    return Image.fromarray(255 - np.pad(digits.enlarge(small), 4))


def write_tree(
    folder: Path, names: Sequence[str] = NUMERALS[:3], per_class: int = 5
) -> Path:
    """A sub-folder for each name, of so many images of the digits 0, 1, 2 ..."""
    for digit, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            drawn(digit, number).save(folder / name / f"{number:02}.png")
    return folder
