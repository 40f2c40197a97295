"""Probabilities and how good they are, in NumPy alone: records are read without JAX."""

from typing import NamedTuple

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities: float [N, K] -> float32 [N, K]; computed in float64."""
    logits = logits.astype(np.float64)
    exps = np.exp(logits - logits.max(-1, keepdims=True))
    return (exps / exps.sum(-1, keepdims=True)).astype(np.float32)


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
        float(correct / total) if total else None
        for correct, total in zip(matrix.diagonal(), totals, strict=True)
    ]


class Reliability(NamedTuple):
    """How often predictions of a certain confidence are correct; bins without images
    are left out."""

    confidence: np.ndarray  # float64 [b], mean probability of the predictions in a bin
    accuracy: np.ndarray  # float64 [b], share of them that is correct
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
      probabilities: float [N, K]; the largest is the prediction's confidence.
      labels: int [N].
      num_bins: of equal width, from 0 to 1.
    """
    confidence = probabilities.max(-1).astype(np.float64)
    correct = probabilities.argmax(-1) == labels
    # A bin has its upper edge, not its lower one.
    bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    count = np.bincount(bins, minlength=num_bins)
    sums = [np.bincount(bins, x, num_bins)[count > 0] for x in (confidence, correct)]
    count = count[count > 0]
    return Reliability(sums[0] / count, sums[1] / count, count)


def mcnemar(correct: np.ndarray, other_correct: np.ndarray) -> float:
    """How likely a difference like this is between two equally good classifiers.

    The exact test of McNemar (1947): of the images that one of the two has correct and
    the other wrong, each is as likely to be either's.

    Args:
      correct: bool [N], whether one classifier has each image correct.
      other_correct: bool [N], whether the other has.

    Returns:
      The two-sided p-value; 1.0 where they differ in no image.
    """
    import scipy.stats  # not at the top: it takes half a second

    first = int((correct & ~other_correct).sum())
    second = int((~correct & other_correct).sum())
    if first + second == 0:
        return 1.0
    return float(scipy.stats.binomtest(first, first + second).pvalue)
