"""Training that cannot go on, and how that is told."""

from typing import Any

import jax
import numpy as np

from mnist_jax.config import Config
from mnist_jax.errors import UserError


class TrainingError(UserError):
    """Training cannot go on; the message has the likely cause."""


def check_loss(losses: np.ndarray, done: int, config: Config) -> None:
    """Raises TrainingError for a loss that is not finite.

    Args:
      losses: float32 [n], of the steps after the first `done`.
      done: steps before them.
      config: of the run, for the message.
    """
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad):
        _diverged(f"the loss is {losses[bad[0]]} at step {done + bad[0] + 1}", config)


def check_params(params: Any, config: Config) -> None:
    """Raises TrainingError for an update that no loss before a record shows."""
    leaves = jax.tree.leaves(jax.device_get(params))
    if not all(np.isfinite(leaf).all() for leaf in leaves):
        _diverged("the last step made parameters that are not finite", config)


def check_score(loss: float, split: str, config: Config) -> None:
    """Raises TrainingError where finite parameters are so large that this is not."""
    if not np.isfinite(loss):
        _diverged(f"the {split} loss is {loss}", config)


def _diverged(what: str, config: Config) -> None:
    raise TrainingError(
        f"{what}: most likely the learning rate is too high; lower --learning_rate "
        f"(now {config.learning_rate:g}) or set --clip_norm (now "
        f"{config.clip_norm:g}), and train again with --overwrite"
    )
