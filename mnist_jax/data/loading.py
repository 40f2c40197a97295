"""`prepare` and `load`: from a data set's name to its arrays.

tfds, requests and scikit-learn are imported on first use: they are slow to import.
"""

import json
import os
from pathlib import Path

from absl import logging

from mnist_jax.data import idx
from mnist_jax.data.dataset import Dataset, DatasetError
from mnist_jax.data.sources import DATASETS

PathLike = str | os.PathLike[str]


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
      name: 'auto' or a key of `DATASETS`.
      data_dir: where tfds keeps its data sets; None: TFDS_DATA_DIR or tfds's default.
      raw_dir: folder of the four IDX files, gzipped or not. A prepared copy must
        hold the same data. None: the prepared copy, whatever it was made from; if
        there is none, MNIST_RAW_DIR for 'mnist' and 'auto'.

    Returns:
      The name, with 'auto' resolved.

    Raises:
      DatasetError: the data set cannot be had, or is not that of `raw_dir`.
    """
    if name != "auto" and name not in DATASETS:
        known = ", ".join(["auto", *DATASETS])
        raise DatasetError(f"unknown data set {name!r}; expected one of {known}")
    if raw_dir and not os.path.isdir(_folder(raw_dir)):
        raise DatasetError(
            f"--raw_dir={raw_dir}: no such folder; expected one that holds the four "
            "IDX files"
        )
    if name != "auto":
        _prepare(name, data_dir, raw_dir)
        return name
    try:
        _prepare("mnist", data_dir, raw_dir)
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
    _prepare("digits", data_dir, None)
    return "digits"


def load(
    name: str = "auto",
    data_dir: PathLike | None = None,
    raw_dir: PathLike | None = None,
) -> Dataset:
    """Prepares a data set if need be, and reads it. Arguments as for `prepare`.

    Raises:
      DatasetError: the data set cannot be had, is not that of `raw_dir`, or its
        prepared files are damaged.
    """
    name = prepare(name, data_dir, raw_dir)
    from mnist_jax.data import prepared

    return prepared.read(name, _data_dir(data_dir))


def prepared_sha256(name: str, data_dir: PathLike | None = None) -> str | None:
    """`Dataset.sha256` of the prepared copy, without reading its images.

    None where none is prepared, or it was prepared before the digest was stored.
    """
    from mnist_jax.data import builders

    path = builders.folder(name, _data_dir(data_dir)) / "metadata.json"
    try:
        return json.loads(path.read_text()).get("sha256")
    except (OSError, ValueError, AttributeError):
        return None


def _prepare(name: str, data_dir: PathLike | None, raw_dir: PathLike | None) -> None:
    from mnist_jax.data import prepared

    if raw_dir and DATASETS[name].make_arrays:
        logging.warning("--raw_dir=%s is not used: %s has no files", raw_dir, name)
        raw_dir = None
    folder = _data_dir(data_dir)
    if not prepared.exists(name, folder):
        raw = _folder(raw_dir) if raw_dir else _raw_dir_of_environment(name)
        prepared.prepare(name, folder, raw)
    elif raw_dir:
        prepared.require_equal(name, folder, _folder(raw_dir))


def _data_dir(data_dir: PathLike | None) -> Path:
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return _folder(data_dir or default)


def _raw_dir_of_environment(name: str) -> Path | None:
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
