"""A person's image files, brought to the form of MNIST's images."""

from mnist_jax.images.conversion import read_image
from mnist_jax.images.files import ImageError

__all__ = ["ImageError", "read_image"]
