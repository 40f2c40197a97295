"""What the studies of speed train: Adam at a constant rate, and nothing random but
the order of the images."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.speed import timing
from experiments.speed.frameworks.families import LEARNING_RATE, NUM_CLASSES
from mnist_jax import models, optim
from mnist_jax.config import Config, make_config
from mnist_jax.trainer import Trainer
from mnist_jax.training_setup import build_model, make_trainer


def make_plain_config(
    model: str, batch_size: int, units: int | None = 128, **others: Any
) -> Config:
    """Settings without augmentation, dropout and regularization.

    Args:
      model: a name in `models.MODELS`; recurrent ones have one layer.
      batch_size: images per step.
      units: of the hidden layer, where the model has one.
      **others: settings by name, on top.

    Raises:
      ConfigError: a value is out of range.
    """
    of_model = {
        "hidden_sizes": (units,),
        "units": units,
        "layers": 1,
        "bidirectional": False,
        "sequence": "rows",
        "dropout": 0.0,
    }
    known = models.default_settings(model)
    settings = {
        "dataset": "mnist",
        "seed": 0,
        "batch_size": batch_size,
        "optimizer": "adam",
        "learning_rate": LEARNING_RATE,
        "schedule": "constant",
        "weight_decay": 0.0,
        "clip_norm": 0.0,
        "label_smoothing": 0.0,
        "augment": "none",
        **{name: value for name, value in of_model.items() if name in known},
    }
    return make_config(model, **settings | others)


def make_plain_trainer(
    config: Config,
    images: np.ndarray,
    labels: np.ndarray,
    indices: np.ndarray | None = None,
) -> Trainer:
    """The package's driver for a config of `make_plain_config`.

    Args:
      config: of the run.
      images: uint8 [N, H, W, 1].
      labels: int32 [N], 0-9.
      indices: int [n], of the images of an epoch; None for all, each once.

    Raises:
      ConfigError: see `training_setup.make_trainer`.
    """
    if indices is None:
        indices = np.arange(len(images))
    model = build_model(config, images.shape[1:], NUM_CLASSES)
    schedule = optim.make_schedule(config.schedule, config.learning_rate, 1)
    return make_trainer(config, model, schedule, images, labels, indices)


def make_epochs(trainer: Trainer) -> Callable[[], dict[str, Any]]:
    """A function that trains the next epoch at each call, for `timing.take_turn`."""
    epochs = itertools.count()

    def train_epoch() -> float:
        return float(trainer.run_epoch(next(epochs))["loss"].mean())

    return timing.timed(train_epoch)
