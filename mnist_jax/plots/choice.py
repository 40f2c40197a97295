"""Which test images the figures show."""

import numpy as np

NUM_RANDOM = 12
NUM_MISTAKES = 24


def choose_shown(
    probabilities: np.ndarray, labels: np.ndarray, seed: int = 0
) -> np.ndarray:
    """Some test images at random, then the most confident mistakes.

    Args:
      probabilities: float [N, K].
      labels: int [N].
      seed: decides which random ones.

    Returns:
      int32 [M], different positions: `NUM_RANDOM` random ones, then up to
      `NUM_MISTAKES` mistakes, the most confident first, that are not among them.
    """
    num_random = min(NUM_RANDOM, len(labels))
    random = np.random.default_rng(seed).permutation(len(labels))[:num_random]
    mistakes = rank_mistakes(probabilities, labels)[:NUM_MISTAKES]
    others = mistakes[~np.isin(mistakes, random)]
    return np.concatenate([random, others]).astype(np.int32)


def rank_mistakes(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Positions of wrong answers, the most confident first: int [M]."""
    wrong = np.flatnonzero(probabilities.argmax(-1) != labels)
    confidence = probabilities[wrong].max(-1)
    return wrong[np.argsort(-confidence, kind="stable")]
