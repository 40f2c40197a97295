"""All that decides the future of a run: saved as a checkpoint, and gone on from."""

from typing import Any, NamedTuple

import jax
import numpy as np

from mnist_jax.errors import EXPECTED
from mnist_jax.parallel import multihost
from mnist_jax.storage.checkpoints import Checkpoints
from mnist_jax.train_step import TrainState
from mnist_jax.trainer import Trainer

Epochs = list[dict[str, Any]]  # lines of metrics.jsonl


class Clock(NamedTuple):
    """Seconds so far, over all starts of the run."""

    compile: float = 0.0
    train: float = 0.0
    epoch: float = 0.0  # those of the epoch in progress

    def add(self, seconds: float) -> "Clock":
        return self._replace(train=self.train + seconds, epoch=self.epoch + seconds)


def save(
    trainer: Trainer, checkpoints: Checkpoints, clock: Clock, epochs: Epochs
) -> None:
    """Saves state, history and clock; raises CheckpointError where that fails."""
    state = trainer.state
    checkpoints.save(
        int(state.step), state.eval_params, training_tree(trainer, clock), epochs
    )


def restore(
    trainer: Trainer, checkpoints: Checkpoints | None, first_params: Any = None
) -> tuple[Clock, Epochs]:
    """Goes on from the last checkpoint, if there is one.

    Args:
      trainer: at the start of the run; takes the state.
      checkpoints: None in processes other than the main one, which get its state.
      first_params: of the first step, where there is no checkpoint; None for those that
        the trainer has.

    Returns:
      The clock, and the epochs until then.

    Raises:
      CheckpointError: none of the checkpoints can be read.
    """
    params = first_params
    if params is None:
        params = jax.device_get(trainer.state.params)
    training = jax.device_get(training_tree(trainer, Clock()))
    if "params" in training:
        training["params"] = params
    epochs: Epochs = []
    with multihost.propagate_errors(EXPECTED):
        if checkpoints is not None and checkpoints.latest_step() is not None:
            history = training["history"]
            params, training, epochs = checkpoints.restore(params, training)
            # Metrics that came with a later version are unknown so far.
            training["history"] = {
                name: training["history"].get(name, np.full_like(zeros, np.nan))
                for name, zeros in history.items()
            }
    params, training = multihost.broadcast((params, training))
    state = TrainState.of_saved(
        training["step"], params, training["opt_state"], training.get("params")
    )
    trainer.set_state(state, training["history"])
    return Clock(**{name: float(x) for name, x in training["clock"].items()}), epochs


def training_tree(trainer: Trainer, clock: Clock) -> dict[str, Any]:
    """All of a checkpoint but for the params that make the model, as orbax knows it."""
    state = trainer.state
    tree = {
        "step": state.step,
        "opt_state": state.opt_state,
        "history": trainer.history,
        "clock": clock._asdict(),
    }
    return tree if state.ema_params is None else tree | {"params": state.params}
