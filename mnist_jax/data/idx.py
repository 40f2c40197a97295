"""IDX files, the format MNIST is published in: finding them and reading them.

An IDX file is a big-endian header (two zero bytes, a type code, the number of
dimensions, then each dimension as uint32) followed by the values. The type code
8 means uint8. Source: http://yann.lecun.com/exdb/mnist/.
"""

import gzip
import math
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mnist_jax.data.dataset import Arrays, DatasetError
from mnist_jax.data.sources import Source

FILES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}

# A gzip file may hold a thousand times its size: more than any set published in this
# form has is not read.
MAX_BYTES = 2**30
_PIECE = 2**20


def find(raw_dir: Path) -> dict[str, Path]:
    """Finds those of the four raw files that `raw_dir` holds.

    Each may be gzipped or not, and spelled `train-images.idx3-ubyte` as well.

    Returns:
      The paths by the keys of `FILES`; what is not there has no key.
    """
    found = {}
    for part, name in FILES.items():
        for stem in (name, name.replace("-idx", ".idx")):
            for path in (raw_dir / f"{stem}.gz", raw_dir / stem):
                if path.is_file():
                    found.setdefault(part, path)
    return found


def require(raw_dir: Path) -> dict[str, Path]:
    """`find`, for a folder that must hold all four.

    Raises:
      DatasetError: one of the files is missing.
    """
    found = find(raw_dir)
    missing = [name for part, name in FILES.items() if part not in found]
    if missing:
        raise DatasetError(
            f"{raw_dir}: {', '.join(missing)} missing; expected the four IDX files "
            f"{', '.join(FILES.values())}, each gzipped (.gz) or not; put them there "
            "or give another --raw_dir"
        )
    return found


def read(paths: Mapping[str, Path], source: Source) -> Arrays:
    """Reads and checks the four files.

    Args:
      paths: by the keys of `FILES`.
      source: gives the shape of the images and the number of classes.

    Returns:
      By the keys of `FILES`: images, uint8 [N, *source.image_shape], and labels,
      int32 [N], each the index of a class.

    Raises:
      DatasetError: a file is damaged or does not fit its partner or `source`.
    """
    num_classes = len(source.class_names)
    arrays = {}
    for part in ("train", "test"):
        image_path, label_path = paths[f"{part}_images"], paths[f"{part}_labels"]
        images = read_array(image_path, 3)[..., np.newaxis]
        labels = read_array(label_path, 1)
        if images.shape[1:] != source.image_shape:
            found, expected = _by(images.shape[1:-1]), _by(source.image_shape[:-1])
            raise _damaged(image_path, f"images of {found}", expected)
        if not len(images):
            raise _damaged(image_path, "no images", "at least one")
        if len(images) != len(labels):
            raise _damaged(
                label_path, f"{len(labels)} labels", f"{len(images)} ({image_path})"
            )
        if labels.max() >= num_classes:
            expected = f"labels 0 to {num_classes - 1}"
            raise _damaged(label_path, f"label {labels.max()}", expected)
        arrays[f"{part}_images"] = images
        arrays[f"{part}_labels"] = labels.astype(np.int32)
    return arrays


def read_array(path: Path, num_dims: int) -> np.ndarray:
    """Reads one file, gzipped or not.

    Returns:
      The uint8 array of `num_dims` dimensions that it holds.

    Raises:
      DatasetError: the file holds no such array, or more than `MAX_BYTES`.
    """
    try:
        with _open(path) as file:
            shape = _read_shape(file, path, num_dims)
            size = math.prod(shape)
            if size > MAX_BYTES:
                raise _damaged(
                    path,
                    f"{size} bytes announced for {_by(shape)}",
                    f"at most {MAX_BYTES}",
                )
            # One more than announced, which would be too many.
            content = _read_up_to(file, size + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, f"bad gzip data ({error})", "a whole gzip file") from error
    except OSError as error:
        raise DatasetError(
            f"{path}: cannot be read ({error.strerror}); expected a readable IDX "
            "file; check the file and its rights"
        ) from error
    if len(content) != size:
        found = f"{len(content)}" if len(content) < size else f"more than {size}"
        raise _damaged(
            path, f"{found} bytes after the header", f"{size} for {_by(shape)}"
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def _open(path: Path) -> BinaryIO:
    """The file's content as it was before gzip, if it is gzipped."""
    with open(path, "rb") as file:
        # By content, as browsers unpack a file and keep its name.
        is_gzipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if is_gzipped else open(path, "rb")


def _read_shape(file: BinaryIO, path: Path, num_dims: int) -> tuple[int, ...]:
    """The shape that the file's header announces."""
    magic = bytes((0, 0, 8, num_dims))
    header = file.read(4 * (1 + num_dims))
    if len(header) < 4 * (1 + num_dims) or header[:4] != magic:
        raise _damaged(
            path,
            f"begins with 0x{header[:4].hex()}" if header else "empty",
            f"an IDX file of uint8 in {num_dims} dimensions (0x{magic.hex()})",
        )
    return struct.unpack(f">{num_dims}I", header[4:])


def _read_up_to(file: BinaryIO, size: int) -> bytearray:
    """The next `size` bytes, fewer at the file's end.

    Piece by piece: asked for all at once, Python would set the memory aside for what
    a header announces, be it there or not.
    """
    content = bytearray()
    while piece := file.read(min(size - len(content), _PIECE)):
        content += piece
    return content


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _damaged(path: Path, found: str, expected: str) -> DatasetError:
    return DatasetError(
        f"{path}: {found}; expected {expected}; replace it by the original file"
    )
