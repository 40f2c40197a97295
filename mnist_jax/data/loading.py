"""`prepare` and `load`: from a data set's name to its arrays.

tfds, requests, scikit-learn and PIL are imported on first use: they are slow to import.
"""

import os
from pathlib import Path

from absl import logging

from mnist_jax.data import idx
from mnist_jax.data.dataset import Copy, Dataset, DatasetError
from mnist_jax.data.sources import DATASETS, is_image_folder

PathLike = str | os.PathLike[str]


def prepare(
    name: str = "auto",
    data_dir: PathLike | None = None,
    raw_dir: PathLike | None = None,
    preprocess: str | None = None,
) -> str:
    """Makes sure that a data set is prepared.

    What is not prepared yet is made from the raw files, if a folder of them is
    named, and otherwise downloaded. 'auto' is 'mnist' if it can be had, and else,
    with a warning, 'digits'. 'folder' is a person's own images, which `raw_dir` names:
    each content of it is prepared for itself.

    Args:
      name: 'auto' or a key of `DATASETS`.
      data_dir: where tfds keeps its data sets; None: TFDS_DATA_DIR or tfds's default.
      raw_dir: folder of the four IDX files, gzipped or not. A prepared copy must
        hold the same data. None: the prepared copy, whatever it was made from; if
        there is none, MNIST_RAW_DIR for 'mnist' and 'auto'. Of 'folder' it holds a
        sub-folder of image files for each class.
      preprocess: key of `images.READERS`, for 'folder' alone; None for 'strokes'.

    Returns:
      The name, with 'auto' resolved.

    Raises:
      DatasetError: the data set cannot be had, or is not that of `raw_dir`.
      UserErrors: several image files cannot be used.
    """
    return _prepare_any(name, data_dir, raw_dir, preprocess).name


def _prepare_any(
    name: str,
    data_dir: PathLike | None,
    raw_dir: PathLike | None,
    preprocess: str | None,
) -> Copy:
    """`prepare`; returns the prepared copy."""
    if name != "auto" and name not in DATASETS:
        known = ", ".join(["auto", *DATASETS])
        raise DatasetError(f"unknown data set {name!r}; expected one of {known}")
    check_given(name, raw_dir)
    if is_image_folder(name):
        return _prepare_folder(name, data_dir, raw_dir, preprocess)
    if raw_dir and not os.path.isdir(_folder(raw_dir)):
        raise DatasetError(
            f"--raw_dir={raw_dir}: no such folder; expected one that holds the four "
            "IDX files"
        )
    if name != "auto":
        return _prepare(name, data_dir, raw_dir)
    try:
        return _prepare("mnist", data_dir, raw_dir)
    except DatasetError as error:
        # Files that were asked for by name are not silently replaced by others.
        if raw_dir:
            raise
        logging.warning(
            "\n*** NOT MNIST: using scikit-learn's 1,797 digits instead. "
            "***\n*** %s ***",
            error,
        )
    return _prepare("digits", data_dir, None)


def load(
    name: str = "auto",
    data_dir: PathLike | None = None,
    raw_dir: PathLike | None = None,
    preprocess: str | None = None,
    sha256: str | None = None,
) -> Dataset:
    """Prepares a data set if need be, and reads it. Arguments as for `prepare`.

    Args:
      sha256: `Dataset.sha256` of the prepared copy to read, for 'folder' where
        `raw_dir` is None.

    Raises:
      DatasetError: the data set cannot be had, is not that of `raw_dir`, or its
        prepared files are damaged.
      UserErrors: several image files cannot be used.
    """
    from mnist_jax.data import prepared

    if is_image_folder(name) and sha256 and not raw_dir:
        copy = prepared.find(name, _data_dir(data_dir), sha256)
        if copy is None:
            raise DatasetError(
                f"{_data_dir(data_dir)}: no images prepared there have the SHA-256 "
                f"{sha256[:12]}... of the run; give the --data_dir that has, or the "
                "folder of the images by --raw_dir"
            )
    else:
        copy = _prepare_any(name, data_dir, raw_dir, preprocess)
    return prepared.read(copy)


def check_given(
    name: str, raw_dir: PathLike | None, preprocess: str | None = None
) -> None:
    """Checks what is given beside a name; None where it is not given.

    Raises:
      DatasetError: an image folder is not given, or `preprocess` has no effect.
    """
    is_folder = is_image_folder(name)
    if preprocess is not None and not is_folder:
        raise DatasetError(
            f"--preprocess has no effect with --dataset={name}, whose images are used "
            "as they are: leave it out, or give --dataset=folder"
        )
    if is_folder and not raw_dir:
        raise DatasetError(
            f"--dataset={name} needs --raw_dir: give the folder that has a sub-folder "
            "of image files for each class"
        )


def prepared_sha256(
    name: str,
    data_dir: PathLike | None = None,
    raw_dir: PathLike | None = None,
    preprocess: str | None = None,
) -> str | None:
    """`Dataset.sha256` of the prepared copy, without reading its images.

    None where none is prepared, or it was prepared before the digest was stored.
    """
    from mnist_jax.data import prepared

    key = ""
    if is_image_folder(name):
        key = _scan(raw_dir, preprocess).sha256
    return prepared.stored_sha256(Copy(name, _data_dir(data_dir), key))


def _prepare_folder(
    name: str, data_dir: PathLike | None, raw_dir: PathLike, preprocess: str | None
) -> Copy:
    from mnist_jax.data import image_folder, prepared

    tree = _scan(raw_dir, preprocess)
    image_folder.warn_of_unused(tree)
    copy = Copy(name, _data_dir(data_dir), tree.sha256)
    if not prepared.exists(copy):
        prepared.prepare(copy, lambda scratch: image_folder.read(tree))
    return copy


def _scan(raw_dir: PathLike, preprocess: str | None):
    """The `image_folder.Tree` there."""
    from mnist_jax.data import image_folder

    return image_folder.scan(_folder(raw_dir), preprocess or "strokes")


def _prepare(name: str, data_dir: PathLike | None, raw_dir: PathLike | None) -> Copy:
    from mnist_jax.data import originals, prepared

    if raw_dir and DATASETS[name].make_arrays:
        logging.warning("--raw_dir=%s is not used: %s has no files", raw_dir, name)
        raw_dir = None
    copy = Copy(name, _data_dir(data_dir))
    if not prepared.exists(copy):
        raw = _folder(raw_dir) if raw_dir else _raw_dir_of_environment(name)
        prepared.prepare(copy, lambda scratch: originals.read(name, raw, scratch))
    elif raw_dir:
        prepared.require_equal(copy, _folder(raw_dir))
    return copy


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
