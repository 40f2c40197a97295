"""A person's image files, brought to the form of MNIST's images."""

from mnist_jax.images.conversion import NoDigitError, read_image
from mnist_jax.images.files import ImageError, expand_user
from mnist_jax.images.listing import find_files
from mnist_jax.images.resizing import resize_image

# By the name that --preprocess takes: (file, (height, width)) -> uint8 [H, W, 1].
READERS = {"strokes": read_image, "resize": resize_image}

__all__ = [
    "READERS",
    "ImageError",
    "NoDigitError",
    "expand_user",
    "find_files",
    "read_image",
    "resize_image",
]
