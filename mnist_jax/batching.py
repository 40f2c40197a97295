"""The images of a run: which are held out, in which order the others come, and what
is done to them."""

import math

import numpy as np

from mnist_jax import augment, data
from mnist_jax.config import Config, ConfigError

_MAX_STEPS = 2**31 - 1  # that an int32 counts


def split(labels: np.ndarray, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training and of the validation part, int64, sorted.

    Args:
      labels: int [N], of the training set.
      config: of the run.

    Raises:
      ConfigError: there is no such fold.
    """
    fraction, fold = config.validation_fraction, config.validation_fold
    by_block = config.validation_by == "block"
    if fold is None and by_block:
        raise ConfigError(
            "--validation_by=block: blocks are cut into folds: give --validation_fold "
            "too, from 0"
        )
    if fold is None:
        return data.split_validation(labels, fraction, config.seed)
    num_folds = round(1 / fraction) if fraction else 0
    if fold >= num_folds or not math.isclose(num_folds * fraction, 1):
        raise ConfigError(
            f"--validation_fold={fold}: --validation_fraction={fraction:g} makes no "
            "such part: give a fraction like 0.2, which makes five, and one below five"
        )
    if by_block:
        return data.split_blocks(len(labels), num_folds, fold)
    return data.split_fold(labels, num_folds, fold)


def make_augmentation(config: Config) -> augment.Augmentation:
    """What is done to the images of a batch."""
    return augment.make_augmentation(
        config.augment,
        config.affine_strength,
        config.affine_shift,
        config.elastic_pixels,
        config.nearest_fraction,
    )


def count_steps(config: Config, num_images: int) -> int:
    """Whole batches in an epoch of so many images.

    Raises:
      ConfigError: there is none.
    """
    if num_images == 0:
        raise ConfigError(
            f"--validation_fraction={config.validation_fraction}: it leaves no image "
            f"of {config.dataset} to train on; lower it"
        )
    if num_images < config.batch_size:
        raise ConfigError(
            f"--batch_size={config.batch_size}: {config.dataset} has {num_images} "
            "images to train on; give that many or fewer"
        )
    num_steps = num_images // config.batch_size
    if num_steps * config.epochs > _MAX_STEPS:
        raise ConfigError(
            f"--epochs={config.epochs}: more than {_MAX_STEPS} steps of "
            f"{config.batch_size} images; give {_MAX_STEPS // num_steps} or fewer"
        )
    return num_steps


def epoch_order(
    indices: np.ndarray, batch_size: int, seed: int, epoch: int
) -> np.ndarray:
    """The batches of one epoch, a function of (seed, epoch) alone.

    Args:
      indices: int [N], to draw from.
      batch_size: B.
      seed: the run's seed.
      epoch: 0 for the first.

    Returns:
      int32 [N // B, B]; each index once at most, other leftovers in each epoch.
    """
    shuffled = np.random.default_rng((seed, epoch)).permutation(indices)
    num_steps = len(indices) // batch_size
    return shuffled[: num_steps * batch_size].reshape(num_steps, -1).astype(np.int32)
