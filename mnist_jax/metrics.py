"""Loss and accuracy from logits and labels, and the scores of a whole set."""

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


def cross_entropy(logits: Array, labels: Array, label_smoothing: float = 0.0) -> Array:
    """Mean cross-entropy over a batch.

    Args:
      logits: float32 [B, K].
      labels: int32 [B], 0 to K - 1.
      label_smoothing: share of each target spread over all classes, 0 to below 1.

    Returns:
      float32 [].
    """
    if label_smoothing == 0:
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
