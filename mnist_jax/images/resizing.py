"""A picture that is no drawing of strokes, scaled to the size of MNIST's images."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from mnist_jax.images import files


def resize_image(
    file: str | Path | BinaryIO, shape: tuple[int, int] = (28, 28)
) -> np.ndarray:
    """Scales the whole picture, aspect ratio kept, into the middle of a black field.

    Light stays light and dark stays dark. Black is what augmentation fills with, and
    what a padded convolution sees around an image. A grey picture of this size is
    taken as it is.

    Args:
      file: the path of a file in one of `files.FORMATS`, or that file opened, of any
        mode and at most `files.MAX_PIXELS`; of several frames the first is read. `~` is
        the home folder.
      shape: height H and width W of the result, pixels.

    Returns:
      uint8 [H, W, 1], 0-255.

    Raises:
      ImageError: the file is missing, damaged or too large.
    """
    grey = files.read_grey(files.parse_file(file))
    scale = min(shape[0] / grey.height, shape[1] / grey.width)
    size = [max(1, round(scale * side)) for side in grey.size]
    corner = (shape[1] - size[0]) // 2, (shape[0] - size[1]) // 2
    field = Image.new("L", shape[::-1])
    field.paste(grey.resize(size, Image.Resampling.HAMMING), corner)
    return np.asarray(field)[..., None]
