"""The model of a run that has a checkpoint, with its weights."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from mnist_jax import train_step
from mnist_jax.config import Config
from mnist_jax.storage.checkpoints import Checkpoints
from mnist_jax.storage.stored_config import Facts
from mnist_jax.storage.stored_run import require_config
from mnist_jax.training_setup import build_model


class StoredModel(NamedTuple):
    """What the last sound checkpoint of a run is of."""

    config: Config
    facts: Facts
    model: nn.Module
    step: int  # that the checkpoint was taken after
    params: Any  # NumPy arrays


def load(
    workdir: Path, flag: str = "workdir", precision: str | None = None
) -> StoredModel:
    """Reads the run in `workdir`, which a person gave by `flag`; writes nothing.

    Args:
      workdir: the run's folder.
      flag: for messages.
      precision: of the model's matmuls, as the setting; None for the run's own.

    Raises:
      RecordsError, CheckpointError: there is no run that can be read.
    """
    config, _, facts = require_config(workdir, flag)
    computed = dataclasses.replace(config, precision=precision or config.precision)
    model = build_model(computed, facts.image_shape, len(facts.class_names))
    shapes = train_step.init_params_shapes(model, facts.image_shape)
    template = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    with Checkpoints(workdir, config.identity(), read_only=True) as checkpoints:
        step, params = checkpoints.restore_params(template)
    return StoredModel(config, facts, model, step, params)
