"""scikit-learn's digits, brought to MNIST's form."""

import hashlib

import numpy as np
import PIL.Image
import sklearn
import sklearn.datasets

from mnist_jax.data.dataset import Arrays
from mnist_jax.data.splits import split_validation

NUM_TEST = 397

# Of the 8x8 images and the labels, as uint8.
SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"


def make_arrays() -> tuple[Arrays, str]:
    """The fixed stratified split of the 1,797 digits.

    Returns:
      `train_images` and `test_images`, uint8 [N, 28, 28, 1], `train_labels` and
      `test_labels`, int32 [N]; and their provenance.
    """
    digits = sklearn.datasets.load_digits()
    labels = digits.target.astype(np.uint8)
    small = digits.images.astype(np.uint8)
    digest = hashlib.sha256(small.tobytes() + labels.tobytes()).hexdigest()
    verified = "verified" if digest == SHA256 else "NOT verified"
    images = np.stack([enlarge(image) for image in small])[..., np.newaxis]
    train, test = split_validation(labels, NUM_TEST / len(labels), seed=0)
    arrays = {
        "train_images": images[train],
        "train_labels": labels[train].astype(np.int32),
        "test_images": images[test],
        "test_labels": labels[test].astype(np.int32),
    }
    version = sklearn.__version__
    return arrays, f"scikit-learn {version} (load_digits), SHA-256 {verified}"


def enlarge(image: np.ndarray) -> np.ndarray:
    """Brings an 8x8 digit, 0-16, to MNIST's form: uint8 [28, 28].

    The 8x8 cells cover the 20x20 box in the middle. Interpolated strokes are wide
    and grey; cutting at 80 and doubling gives them MNIST's width and blackness
    (mean 35 and deviation 79, against 34 and 79 of MNIST's test images).
    """
    padded = PIL.Image.fromarray(np.pad(image, 2).astype(np.float32) * (255 / 16))
    grey = np.asarray(padded.resize((30, 30), PIL.Image.Resampling.BICUBIC))[1:-1, 1:-1]
    return np.rint(np.clip(2 * (grey - 80), 0, 255)).astype(np.uint8)
