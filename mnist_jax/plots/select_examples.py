"""Which test images the figures show."""

import numpy as np

NUM_RANDOM = 12
NUM_MISTAKES = 24


def select_examples(
    probabilities: np.ndarray, labels: np.ndarray, seed: int = 0
) -> np.ndarray:
    """Random test images, then the most confident mistakes.

    Args:
      probabilities: float [N, K].
      labels: int [N].
      seed: of the random ones.

    Returns:
      int32 [M], distinct indices: `NUM_RANDOM` random ones, then up to `NUM_MISTAKES`
      mistakes that are not among them, the most confident first.
    """
    num_random = min(NUM_RANDOM, len(labels))
    random = np.random.default_rng(seed).permutation(len(labels))[:num_random]
    mistakes = rank_mistakes(probabilities, labels)[:NUM_MISTAKES]
    others = mistakes[~np.isin(mistakes, random)]
    return np.concatenate([random, others]).astype(np.int32)


def rank_mistakes(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Indices of wrong predictions, the most confident first: int [M]."""
    wrong = np.flatnonzero(probabilities.argmax(-1) != labels)
    confidence = probabilities[wrong].max(-1)
    return wrong[np.argsort(-confidence, kind="stable")]
