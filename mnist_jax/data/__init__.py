"""Data sets as uint8 arrays, prepared once by tfds and read without TensorFlow.

`mnist`, `fashion_mnist` and `kmnist` come from prepared files, raw IDX files or the
network; `digits` comes with scikit-learn and needs none of them; `folder` is a
person's own image files.
"""

from mnist_jax.data.dataset import Dataset, DatasetError
from mnist_jax.data.loading import check_given, load, prepare, prepared_sha256
from mnist_jax.data.sources import DATASETS, NAMES, Source
from mnist_jax.data.splits import split_blocks, split_fold, split_validation

__all__ = [
    "DATASETS",
    "NAMES",
    "Dataset",
    "DatasetError",
    "Source",
    "check_given",
    "load",
    "prepare",
    "prepared_sha256",
    "split_blocks",
    "split_fold",
    "split_validation",
]
