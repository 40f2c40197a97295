"""A person's image files, brought to the form of MNIST's images."""

from mnist_jax.images.conversion import NoDigitError, read_image
from mnist_jax.images.files import ImageError
from mnist_jax.images.listing import find_files

__all__ = ["ImageError", "NoDigitError", "find_files", "read_image"]
