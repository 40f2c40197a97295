"""Loss and accuracy from logits and labels, of batches and of a whole set."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

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


def mean_cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Of a whole set, in float64: float32 [N, K], int32 [N]."""
    import scipy.special  # not at the top: it takes a tenth of a second

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
    with np.errstate(invalid="ignore"):  # of diverged training, see `divergence`
        return {name: metric(logits, labels) for name, metric in EPOCH_METRICS.items()}
