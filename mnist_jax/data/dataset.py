"""What loading a data set returns, and the error that it raises."""

from typing import NamedTuple

import numpy as np

from mnist_jax.errors import UserError

Arrays = dict[str, np.ndarray]  # the last four fields of `Dataset` by name


class DatasetError(UserError):
    """Data that cannot be had or read."""


class Dataset(NamedTuple):
    """A data set in memory: per part N images of HxW pixels, of K classes."""

    name: str  # never 'auto'
    class_names: tuple[str, ...]  # K
    provenance: str  # one line: the source, and whether its SHA-256 was verified
    sha256: str  # hex, `digests.of_arrays` of the four arrays by name
    train_images: np.ndarray  # uint8 [N, H, W, 1], 0-255
    train_labels: np.ndarray  # int32 [N], 0 to K - 1
    test_images: np.ndarray  # uint8 [N, H, W, 1], 0-255
    test_labels: np.ndarray  # int32 [N], 0 to K - 1
