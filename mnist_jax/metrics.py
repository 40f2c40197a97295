"""Loss and accuracy from logits and labels, and the scores of a whole set."""

from collections.abc import Callable
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
        float32 [] where it is a traced argument.

    Returns:
      float32 [].
    """
    if isinstance(label_smoothing, float | int) and label_smoothing == 0:
        return sparse_cross_entropy(logits, labels).mean()
    targets = smooth_one_hot(labels, logits.shape[-1], label_smoothing)
    return one_hot_cross_entropy(logits, targets).mean()


def accuracy(logits: Array, labels: Array) -> Array:
    """Share of correct predictions: float [B, K], int32 [B] -> float32 []."""
    return (logits.argmax(-1) == labels).mean(dtype=jnp.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities: float [N, K] -> float32 [N, K]; computed in float64."""
    return scipy.special.softmax(logits.astype(np.float64), -1).astype(np.float32)


def mean_cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Of a whole set, in float64: float32 [N, K], int32 [N]."""
    log_probabilities = scipy.special.log_softmax(logits.astype(np.float64), -1)
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())


def mean_accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Of a whole set: float32 [N, K], int32 [N]."""
    return float((logits.argmax(-1) == labels).mean())


# On the device, of each training batch, beside its loss: (logits float32 [B, K], labels
# int32 [B]) -> float32 []. Their means over an epoch are the columns train_<name> of
# metrics.jsonl.
STEP_METRICS: dict[str, Callable[[Array, Array], Array]] = {"accuracy": accuracy}

# On the host, of a whole set: (logits float32 [N, K], labels int32 [N]) -> float. They
# are the columns validation_<name> of metrics.jsonl and test_<name> in result.json.
EPOCH_METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "loss": mean_cross_entropy,
    "accuracy": mean_accuracy,
}


def score(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """All of `EPOCH_METRICS` of a whole set, each image counted once.

    Args:
      logits: float32 [N, K].
      labels: int32 [N].
    """
    return {name: metric(logits, labels) for name, metric in EPOCH_METRICS.items()}


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
