"""What loading a data set returns, and the error that it raises."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from mnist_jax.errors import UserError

Arrays = dict[str, np.ndarray]  # the last four fields of `Dataset` by name


class DatasetError(UserError):
    """Data that cannot be had or read."""


class Original(NamedTuple):
    """A data set as its source gives it, before it is prepared."""

    arrays: Arrays
    class_names: tuple[str, ...]
    provenance: str  # one line


class Copy(NamedTuple):
    """Which prepared copy of a data set; `builders.folder` is where it lies."""

    name: str  # key of `DATASETS`
    data_dir: Path  # where all are prepared
    key: str = ""  # of an image folder, see `image_folder.Tree.sha256`


class Dataset(NamedTuple):
    """A data set in memory: per part N images of HxW pixels, of K classes."""

    name: str  # never 'auto'
    class_names: tuple[str, ...]  # K
    provenance: str  # one line: the source, and whether its SHA-256 was verified
    sha256: str  # hex, see `prepared.sha256_of`
    train_images: np.ndarray  # uint8 [N, H, W, 1], 0-255
    train_labels: np.ndarray  # int32 [N], 0 to K - 1
    test_images: np.ndarray  # uint8 [N, H, W, 1], 0-255
    test_labels: np.ndarray  # int32 [N], 0 to K - 1
