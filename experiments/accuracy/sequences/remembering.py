"""What of a long sequence a trained model uses."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from mnist_jax import explain, predict, stored_model
from mnist_jax.models.recurrent import permutation

NUM_PARTS = 8  # of the sequence, each of which is made black


def reading_order(sequence: str, num_pixels: int) -> np.ndarray:
    """Which pixel each time step reads, int [T], of 'pixels' or 'permuted'."""
    order = np.arange(num_pixels)
    return order[permutation(num_pixels)] if sequence == "permuted" else order


def gradient_norms(
    folders: Sequence[Path], images: np.ndarray, order: np.ndarray
) -> np.ndarray:
    """How much the pixel of each time step moves the prediction, float [T].

    The mean over runs and images of the size of the gradient of the predicted class's
    log-probability.
    """
    of_runs = []
    for folder in folders:
        stored = stored_model.load(folder)
        saliency_step = jax.jit(explain.make_saliency_step(stored.model))
        of_runs.append(saliency_step(stored.params, images))
    return np.mean(of_runs, axis=(0, 1)).ravel()[order]


def accuracies_without(
    folders: Sequence[Path], images: np.ndarray, labels: np.ndarray, order: np.ndarray
) -> np.ndarray:
    """Accuracy where one of `NUM_PARTS` stretches of time steps is black, float
    [parts], mean over runs."""
    classifiers = [predict.load_classifier(folder) for folder in folders]
    found = []
    for steps in np.array_split(order, NUM_PARTS):
        masked = images.reshape(len(images), -1).copy()
        masked[:, steps] = 0
        masked = masked.reshape(images.shape)
        found.append([(x.classify(masked).argmax(-1) == labels) for x in classifiers])
    return np.mean(found, axis=(1, 2))
