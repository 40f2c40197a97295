"""Splitting: stratified, or by blocks of neighbours."""

import numpy as np

_BLOCKS = 6  # of each part of `split_blocks`


def split_validation(
    labels: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts a validation part from a training set, class by class.

    Args:
      labels: int [N].
      fraction: share of the validation part, in [0, 1).
      seed: decides which examples of a class are taken.

    Returns:
      Training and validation indices, int64, sorted, disjoint and together all of
      0..N-1. There are round(fraction * N) validation indices, and of each class
      its share rounded down or up (largest remainders first).

    Raises:
      ValueError: `fraction` is outside [0, 1).
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction={fraction}: expected at least 0 and below 1")
    labels = np.asarray(labels)
    classes, counts = np.unique(labels, return_counts=True)
    shares = fraction * counts
    taken = np.floor(shares).astype(int)
    left_over = round(fraction * len(labels)) - taken.sum()
    taken[np.argsort(taken - shares, kind="stable")[:left_over]] += 1
    return _draw(labels, classes, taken, seed)


def split_fold(
    labels: np.ndarray, num_folds: int, fold: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts one of several equal parts from a training set, class by class.

    Args:
      labels: int [N].
      num_folds: parts, whose sizes differ by one at most, also in each class.
      fold: which, from 0.

    Returns:
      Indices of the other images and of that part, int64, sorted. Every image is in
      one of the parts.
    """
    rng = np.random.default_rng(0)
    order = rng.permutation(len(labels))
    by_class = order[np.argsort(np.asarray(labels)[order], kind="stable")]
    part = np.sort(by_class[fold::num_folds])
    return np.setdiff1d(np.arange(len(labels)), part), part


def split_blocks(
    num_images: int, num_folds: int, fold: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts one of several equal parts from a training set, each of six blocks.

    Neighbours in MNIST are of the same writer, about a hundred at a time. So few images
    of a part have a writer in common with the others, as those of the test set have
    none.

    Args:
      num_images: N, in the order in which they were published.
      num_folds, fold: as of `split_fold`.

    Returns:
      As `split_fold`, but the images left over by equal blocks are in none of the
      parts.
    """
    size = max(1, num_images // (_BLOCKS * num_folds))
    block = np.arange(num_images) // size
    held = (block % num_folds == fold) & (block < _BLOCKS * num_folds)
    return np.flatnonzero(~held), np.flatnonzero(held)


def split_test(
    labels: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts a test part from images that were published without one.

    As `split_validation`, but each class has its own share, rounded, and at least one
    image in each part.

    Raises:
      ValueError: a class has fewer than two images.
    """
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2:
        raise ValueError("a class of one image cannot be in both parts")
    taken = np.clip(np.rint(fraction * counts).astype(int), 1, counts - 1)
    return _draw(labels, classes, taken, seed)


def _draw(
    labels: np.ndarray, classes: np.ndarray, taken: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The indices that are left, and those of so many random images of each class."""
    rng = np.random.default_rng(seed)
    is_taken = np.zeros(len(labels), bool)
    for label, count in zip(classes, taken, strict=True):
        members = np.flatnonzero(labels == label)
        is_taken[rng.permutation(members)[:count]] = True
    return np.flatnonzero(~is_taken), np.flatnonzero(is_taken)
