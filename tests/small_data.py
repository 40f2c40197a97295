"""A small data set in IDX files, and what its loading must give."""

import gzip
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mnist_jax import data, digests
from mnist_jax.data import DatasetError, idx

NUM_TRAIN, NUM_TEST = 300, 120
ROOT = Path(__file__).resolve().parents[1]
# Above the 3 to 7 s that are waited for, and below the time that a server hangs.
GENEROUS_SECONDS, HANG_SECONDS = 120, 300


def idx_bytes(array: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


def small_arrays(seed: int = 0, size=(28, 28), num_classes=10) -> dict[str, np.ndarray]:
    """As in the IDX files: without a channel axis, labels as uint8."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for part, count in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        images = rng.integers(0, 256, (count, *size), np.uint8)
        images[0], images[1] = 0, 255
        arrays[f"{part}_images"] = images
        arrays[f"{part}_labels"] = rng.integers(0, num_classes, count, np.uint8)
    return arrays


def small_files(*args, **kwargs) -> dict[str, bytes]:
    """File name (.gz) -> content; arguments as for `small_arrays`."""
    return {
        f"{idx.FILES[part]}.gz": gzip.compress(idx_bytes(array), mtime=0)
        for part, array in small_arrays(*args, **kwargs).items()
    }


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def assert_holds(dataset: data.Dataset, arrays: dict[str, np.ndarray]):
    ours = {part: getattr(dataset, part) for part in arrays}
    for part, array in arrays.items():
        if array.ndim == 3:
            assert ours[part].dtype == np.uint8
            np.testing.assert_array_equal(ours[part][..., 0], array)
        else:
            assert ours[part].dtype == np.int32
            np.testing.assert_array_equal(ours[part], array)
    assert dataset.sha256 == digests.of_arrays(ours)


def assert_small(dataset: data.Dataset, name: str = "mnist", seed: int = 0):
    assert dataset.name == name
    assert_holds(dataset, small_arrays(seed))


def error_of(function, *args) -> str:
    """The one line of the DatasetError that a call raises."""
    with pytest.raises(DatasetError) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def run_python(code: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
    )
