"""A recipe trained on folds of the training set; the test set has no part in it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.accuracy.search.halving import Search
from mnist_jax.config import Config
from mnist_jax.storage import records

_SEARCH, _HELD_OUT = "search.json", "held_out.npz"


class HeldOut(NamedTuple):
    """What a recipe predicts of images that were held out of its training."""

    indices: np.ndarray  # int64 [N], of the training set
    probabilities: np.ndarray  # float32 [N, K]
    seconds: float  # of training

    def correct(self, labels: np.ndarray) -> np.ndarray:
        """Of each image of the training set 1 or 0, NaN where it was not held out.

        Args:
          labels: int [M], of the whole training set.
        """
        predicted = self.probabilities.argmax(-1)
        return self._spread(predicted == labels[self.indices], len(labels))

    def losses(self, labels: np.ndarray) -> np.ndarray:
        """As `correct`, the cross-entropy."""
        of_label = self.probabilities[
            np.arange(len(self.indices)), labels[self.indices]
        ]
        return self._spread(-np.log(np.maximum(of_label, 1e-12)), len(labels))

    def _spread(self, values: np.ndarray, num_images: int) -> np.ndarray:
        found = np.full(num_images, np.nan)
        found[self.indices] = values
        return found


def join(parts: Sequence[HeldOut]) -> HeldOut:
    """Of other folds of the same recipe."""
    return HeldOut(
        np.concatenate([part.indices for part in parts]),
        np.concatenate([part.probabilities for part in parts]),
        sum(part.seconds for part in parts),
    )


def train(config: Config, folds: Sequence[int], workdir: Path) -> HeldOut:
    """Trains a recipe once for each fold; goes on where it was stopped.

    The folds are vectorized runs: each device trains its own.

    Args:
      config: of the recipe, with a `validation_fraction`.
      folds: which are held out.
      workdir: of this recipe and these folds.

    Raises:
      RecordsError: the folder holds another recipe, or its files are damaged.
    """
    members = [dataclasses.replace(config, validation_fold=fold) for fold in folds]
    search = Search(
        workdir / _SEARCH, members, [{"validation_fold": fold} for fold in folds]
    )
    search.run()
    seconds = sum(score["group_seconds"] for score in search.trials[0]["scores"])
    path = workdir / _HELD_OUT
    if not path.exists():
        indices, probabilities = search.trained().validation()
        indices = indices.reshape(-1)
        probabilities = probabilities.reshape(len(indices), -1)
        arrays = {"indices": indices, "probabilities": probabilities}
        records.write_arrays(path, arrays)
    search.forget_states()
    return records.read_arrays(
        path,
        lambda arrays: HeldOut(arrays["indices"], arrays["probabilities"], seconds),
        f"delete {workdir}, so that it is trained again",
    )
