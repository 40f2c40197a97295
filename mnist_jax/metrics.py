"""Loss and accuracy from logits and labels, and the scores of a whole set."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.special

Array = jax.Array


def sparse_cross_entropy(logits: Array, labels: Array) -> Array:
    """Cross-entropy against class numbers: float32 [B, K], int32 [B] -> float32 [B]."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)


def one_hot_cross_entropy(logits: Array, targets: Array) -> Array:
    """Cross-entropy against distributions: float32 [B, K] twice -> float32 [B]."""
    return optax.losses.softmax_cross_entropy(logits, targets)


def smooth_one_hot(labels: Array, num_classes: int, label_smoothing: float) -> Array:
    """Targets (1 - s) one_hot + s / K (Szegedy et al., 2016): int [B] -> [B, K]."""
    return optax.losses.smooth_labels(
        jax.nn.one_hot(labels, num_classes), label_smoothing
    )


def cross_entropy(
    logits: Array, labels: Array, label_smoothing: float | Array = 0.0
) -> Array:
    """Mean cross-entropy over a batch.

    Args:
      logits: float32 [B, K].
      labels: int32 [B], 0 to K - 1.
      label_smoothing: share of each target spread over all classes, 0 to below 1;
        float32 [] where it is an input of the program.

    Returns:
      float32 [].
    """
    if isinstance(label_smoothing, float | int) and label_smoothing == 0:
        return sparse_cross_entropy(logits, labels).mean()
    targets = smooth_one_hot(labels, logits.shape[-1], label_smoothing)
    return one_hot_cross_entropy(logits, targets).mean()


def accuracy(logits: Array, labels: Array) -> Array:
    """Share of right answers: float [B, K], int32 [B] -> float32 []."""
    return (logits.argmax(-1) == labels).mean(dtype=jnp.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities: float [N, K] -> float32 [N, K]; worked out in float64."""
    return scipy.special.softmax(logits.astype(np.float64), -1).astype(np.float32)


def score(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Mean cross-entropy and accuracy of a whole set, each image counted once.

    Args:
      logits: float32 [N, K].
      labels: int32 [N].

    Returns:
      (loss, accuracy), worked out in float64 on the host.
    """
    log_probabilities = scipy.special.log_softmax(logits.astype(np.float64), -1)
    loss = -log_probabilities[np.arange(len(labels)), labels].mean()
    return float(loss), float((logits.argmax(-1) == labels).mean())


def confusion_matrix(
    predicted: np.ndarray, labels: np.ndarray, num_classes: int
) -> np.ndarray:
    """Counts by true class (rows) and predicted class (columns): int64 [K, K]."""
    matrix = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(matrix, (labels, predicted), 1)
    return matrix


def per_class_accuracy(matrix: np.ndarray) -> list[float | None]:
    """Diagonal over row sum of a confusion matrix; None for a class without images."""
    totals = matrix.sum(1)
    return [
        float(right / total) if total else None
        for right, total in zip(matrix.diagonal(), totals, strict=True)
    ]


class Reliability(NamedTuple):
    """How often answers of a certain confidence are right; bins without images are
    left out."""

    confidence: np.ndarray  # float64 [b], mean probability of the answers in a bin
    accuracy: np.ndarray  # float64 [b], share of them that is right
    count: np.ndarray  # int64 [b]

    @property
    def error(self) -> float:
        """Expected calibration error: the mean distance of the two over all images."""
        gap = np.abs(self.confidence - self.accuracy)
        return float((gap * self.count).sum() / self.count.sum())


def reliability(
    probabilities: np.ndarray, labels: np.ndarray, num_bins: int = 15
) -> Reliability:
    """Confidence against accuracy (Guo et al., "On Calibration of Modern Neural
    Networks", 2017).

    Args:
      probabilities: float [N, K]; the answer is the largest, its confidence.
      labels: int [N].
      num_bins: of equal width, from 0 to 1.
    """
    confidence = probabilities.max(-1).astype(np.float64)
    right = probabilities.argmax(-1) == labels
    # A bin has its upper edge, not its lower one.
    bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    count = np.bincount(bins, minlength=num_bins)
    sums = [np.bincount(bins, x, num_bins)[count > 0] for x in (confidence, right)]
    count = count[count > 0]
    return Reliability(sums[0] / count, sums[1] / count, count)


def mcnemar(right: np.ndarray, other_right: np.ndarray) -> float:
    """How likely a difference like this is between two equally good classifiers.

    The exact test of McNemar (1947): of the images that one of the two has right and
    the other wrong, each is as likely to be either's.

    Args:
      right: bool [N], whether one classifier has each image right.
      other_right: bool [N], whether the other has.

    Returns:
      The two-sided p-value; 1.0 where they differ in no image.
    """
    import scipy.stats  # not at the top: it takes half a second

    first = int((right & ~other_right).sum())
    second = int((~right & other_right).sum())
    if first + second == 0:
        return 1.0
    return float(scipy.stats.binomtest(first, first + second).pvalue)
