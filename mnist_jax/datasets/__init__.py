"""Data sets as uint8 arrays, prepared once by tfds and read without TensorFlow.

`mnist`, `fashion_mnist` and `kmnist` come from prepared files, raw IDX files or the
network; `digits` is embedded in scikit-learn and needs none of them.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging

from mnist_jax.datasets import idx
from mnist_jax.datasets.descriptions import DIGITS, IDX_SETS
from mnist_jax.datasets.idx import DatasetError
from mnist_jax.datasets.splits import split_validation

__all__ = [
    "NAMES",
    "Dataset",
    "DatasetError",
    "class_names",
    "load",
    "prepare",
    "split_validation",
]

PathLike = str | os.PathLike[str]

NAMES = ("auto", "mnist", "fashion_mnist", "kmnist", "digits")


class Dataset(NamedTuple):
    """A data set in memory. N is the number of images of a part."""

    name: str  # never 'auto'
    class_names: tuple[str, ...]  # 10
    provenance: str  # one line: the source, and whether its SHA-256 was verified
    train_images: np.ndarray  # uint8 [N, 28, 28, 1], 0-255
    train_labels: np.ndarray  # int32 [N], 0-9
    test_images: np.ndarray  # uint8 [N, 28, 28, 1], 0-255
    test_labels: np.ndarray  # int32 [N], 0-9


def prepare(
    name: str = "auto",
    data_dir: PathLike | None = None,
    raw_dir: PathLike | None = None,
) -> str:
    """Makes sure that a data set is prepared.

    What is not prepared yet is made from the raw files, if a folder of them is
    named, and otherwise downloaded. 'auto' is 'mnist' if it can be had, and else,
    with a warning, 'digits'.

    Args:
      name: one of `NAMES`.
      data_dir: where tfds keeps its data sets; None: TFDS_DATA_DIR or tfds's default.
      raw_dir: folder of the four IDX files, gzipped or not; None: for 'mnist' and
        'auto', MNIST_RAW_DIR.

    Returns:
      The name, with 'auto' resolved.

    Raises:
      DatasetError: the data set cannot be had.
    """
    if name not in NAMES:
        raise DatasetError(
            f"unknown data set {name!r}; expected one of {', '.join(NAMES)}"
        )
    if raw_dir and not os.path.isdir(_folder(raw_dir)):
        raise DatasetError(
            f"--raw_dir={raw_dir}: no such folder; expected one that holds the four "
            "IDX files"
        )
    # Not at the top: tfds takes half a second to import.
    from mnist_jax.datasets import prepared

    root = _data_dir(data_dir)
    if name != "auto":
        prepared.prepare(name, root, _raw_dir(name, raw_dir))
        return name
    try:
        prepared.prepare("mnist", root, _raw_dir("mnist", raw_dir))
        return "mnist"
    except DatasetError as error:
        # Files that were asked for by name are not silently replaced by others.
        if raw_dir:
            raise
        logging.warning(
            "\n*** NOT MNIST: using scikit-learn's 1,797 embedded digits instead. "
            "***\n*** %s ***",
            error,
        )
    prepared.prepare("digits", root, None)
    return "digits"


def load(
    name: str = "auto",
    data_dir: PathLike | None = None,
    raw_dir: PathLike | None = None,
) -> Dataset:
    """Prepares a data set if need be, and reads it. Arguments as for `prepare`.

    Raises:
      DatasetError: the data set cannot be had, or its prepared files are damaged.
    """
    name = prepare(name, data_dir, raw_dir)
    from mnist_jax.datasets import prepared

    data = prepared.read(name, _data_dir(data_dir))
    return Dataset(class_names=class_names(name), **data)


def class_names(name: str) -> tuple[str, ...]:
    """The ten class names of a data set other than 'auto'; reads no file.

    Raises:
      DatasetError: no data set has this name.
    """
    known = {**IDX_SETS, "digits": DIGITS}
    if name not in known:
        raise DatasetError(
            f"unknown data set {name!r}; expected one of {', '.join(known)}"
        )
    return known[name].class_names


def _data_dir(data_dir: PathLike | None) -> Path:
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return _folder(data_dir or default)


def _raw_dir(name: str, raw_dir: PathLike | None) -> Path | None:
    """The folder of raw files to prepare from; None if there is none."""
    if raw_dir:
        return _folder(raw_dir)
    variable = os.environ.get("MNIST_RAW_DIR")
    if name != "mnist" or not variable:
        return None
    folder = _folder(variable)
    if not idx.find(folder):
        logging.warning(
            "MNIST_RAW_DIR=%s holds none of the four IDX files; not used", variable
        )
        return None
    return folder


def _folder(path: PathLike) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # of the ~
        raise DatasetError(
            f"{path}: there is no such home folder; give the folder's whole path"
        ) from error
