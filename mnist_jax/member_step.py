"""The train step of one member of vectorized runs."""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import numpy as np

from mnist_jax import batching, optim
from mnist_jax.config import Config
from mnist_jax.train_step import TrainStep, make_train_step

# What may differ from member to member of one program; all numbers, none a shape.
SWEPT_SETTINGS = (
    "learning_rate",
    "weight_decay",
    "label_smoothing",
    "dropout",
    "seed",
)
# And what decides which images a member is trained on.
MEMBER_SETTINGS = (*SWEPT_SETTINGS, "validation_fold")


def make_member_step(
    model: nn.Module,
    config: Config,
    swept: Mapping[str, jax.Array],
    total_steps: int,
    microbatch_size: int | None,
) -> TrainStep:
    """The train step of one member. Swept hyperparameters are traced arguments.

    Args:
      model: as `config` has it.
      config: what all members share.
      swept: those of `SWEPT_SETTINGS` that differ from member to member.
      total_steps: of the whole run.
      microbatch_size: see `train_step.make_train_step`.
    """
    # All schedules are proportional to their rate.
    shape = optim.make_schedule(config.schedule, 1.0, total_steps)
    rate = swept.get("learning_rate", config.learning_rate)
    optimizer = optim.make_optimizer(
        config.optimizer,
        lambda step: rate * shape(step),
        swept.get("weight_decay", config.weight_decay),
        config.clip_norm,
    )
    if "dropout" in swept:
        model = model.clone(dropout=swept["dropout"])
    return make_train_step(
        model,
        optimizer,
        augmentation=batching.make_augmentation(config),
        label_smoothing=swept.get("label_smoothing", config.label_smoothing),
        ema_decay=config.ema_decay,
        microbatch_size=microbatch_size,
    )


def swept_values(configs: Sequence[Config]) -> dict[str, np.ndarray]:
    """The seeds, and those settings that differ: uint32 or float32 [M] by name."""
    values = {name: [getattr(c, name) for c in configs] for name in SWEPT_SETTINGS}
    return {
        name: np.array(own, np.uint32 if name == "seed" else np.float32)
        for name, own in values.items()
        if name == "seed" or len(set(own)) > 1
    }
