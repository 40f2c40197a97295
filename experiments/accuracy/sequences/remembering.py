"""What of a long sequence a trained model uses."""

from pathlib import Path

import jax
import numpy as np

from experiments.common import runs
from mnist_jax import explain, predict, stored_model
from mnist_jax.models.recurrent import permutation

NUM_PARTS = 8  # of the sequence, each of which is made black
_NUM_EXPLAINED = 256  # test images whose gradients are taken
_FILE = "remembering.npz"


def reading_order(sequence: str, num_pixels: int) -> np.ndarray:
    """Which pixel each time step reads, int [T], of 'pixels' or 'permuted'."""
    order = np.arange(num_pixels)
    return order[permutation(num_pixels)] if sequence == "permuted" else order


def used_by(
    run: runs.Run, images: np.ndarray, labels: np.ndarray, order: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What a run uses of the test images, kept in its folder.

    Args:
      run: finished.
      images: uint8 [N, H, W, 1].
      labels: int [N].
      order: see `reading_order`.

    Returns:
      `gradient_norms` of the first `_NUM_EXPLAINED` images, float [T];
      `accuracies_without`, float [parts].
    """

    def compute():
        return {
            "gradient_norms": gradient_norms(
                run.workdir, images[:_NUM_EXPLAINED], order
            ),
            "accuracies": accuracies_without(run.workdir, images, labels, order),
        }

    kept = runs.kept_arrays(run, _FILE, compute)
    return kept["gradient_norms"], kept["accuracies"]


def gradient_norms(folder: Path, images: np.ndarray, order: np.ndarray) -> np.ndarray:
    """How much the pixel of each time step moves the prediction, float [T].

    The mean over images of the size of the gradient of the predicted class's
    log-probability.
    """
    stored = stored_model.load(folder)
    saliency_step = jax.jit(explain.make_saliency_step(stored.model))
    return np.mean(saliency_step(stored.params, images), axis=0).ravel()[order]


def accuracies_without(
    folder: Path, images: np.ndarray, labels: np.ndarray, order: np.ndarray
) -> np.ndarray:
    """Accuracy where one of `NUM_PARTS` stretches of time steps is black, float
    [parts]."""
    classifier = predict.load_classifier(folder)
    found = []
    for steps in np.array_split(order, NUM_PARTS):
        masked = images.reshape(len(images), -1).copy()
        masked[:, steps] = 0
        logits = classifier.classify(masked.reshape(images.shape))
        found.append((logits.argmax(-1) == labels).mean())
    return np.array(found)
