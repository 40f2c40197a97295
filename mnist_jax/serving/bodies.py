"""What a request carries: one picture, or an array of images."""

import io
import json

import numpy as np

from mnist_jax.errors import UserError, first_line

MAX_BYTES = 32 * 2**20
MAX_IMAGES = 10_000

JSON, NPY = "application/json", "application/x-npy"


class BodyError(UserError):
    """A request that is refused."""


def parse_images(body: bytes, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Images in MNIST's form, light strokes on black.

    Args:
      body: JSON, N x H x W numbers or an object with these under "images"; or a file
        of NumPy's, of N x H x W or N x H x W x 1.
      kind: `JSON` or `NPY`.
      shape: (H, W, 1), that each image must have.

    Returns:
      uint8 [N, H, W, 1].

    Raises:
      BodyError: it holds something else.
    """
    height, width, _ = shape
    expected = (
        f"expected 1 to {MAX_IMAGES:,} images of {height} x {width} whole numbers from "
        "0 (black) to 255 (a stroke)"
    )
    try:
        array = _read_json(body) if kind == JSON else _read_npy(body)
    # What is no file of NumPy's makes it raise anything, a size that is none included.
    except Exception as error:
        raise BodyError(
            f"the body cannot be read ({first_line(error)}): {expected}"
        ) from error
    if array.shape[1:] not in (shape, shape[:2]) or array.dtype.kind not in "iu":
        found = f"{array.dtype} of shape {list(array.shape)}"
        raise BodyError(f"the body holds {found}: {expected}")
    if not 1 <= len(array) <= MAX_IMAGES or array.min() < 0 or array.max() > 255:
        raise BodyError(
            f"the body holds {len(array):,} images or other values: {expected}"
        )
    return array.reshape(-1, *shape).astype(np.uint8)


def _read_json(body: bytes) -> np.ndarray:
    content = json.loads(body)
    if isinstance(content, dict):
        content = content["images"]
    return np.array(content)


def _read_npy(body: bytes) -> np.ndarray:
    return np.load(io.BytesIO(body), allow_pickle=False)
