"""Runs on chosen devices, of images that are at hand: no data set, no folder."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax

from mnist_jax import batching, flops, optim, train_step, training_setup
from mnist_jax.config import Config, make_config
from mnist_jax.trainer import Trainer


def step_config(model: str, **settings: Any) -> Config:
    """That of the steps which studies measure: the preset's for MNIST, with one
    augmentation where it has any, so that the models alone differ."""
    config = make_config(model, "mnist", **settings)
    if config.augment == "none":
        return config
    return dataclasses.replace(config, augment="shift")


class Parts(NamedTuple):
    """What a config makes of so many images."""

    model: nn.Module
    optimizer: optax.GradientTransformation
    state: train_step.TrainState  # before the first step
    work: flops.Work
    num_steps: int  # in an epoch


def make_parts(
    config: Config, num_images: int, image_shape: Sequence[int], num_classes: int
) -> Parts:
    """Raises a ConfigError where the config suits neither model nor images."""
    model = training_setup.build_model(config, tuple(image_shape), num_classes)
    num_steps = batching.count_steps(config, num_images)
    schedule = optim.make_schedule(
        config.schedule, config.learning_rate, num_steps * config.epochs
    )
    optimizer = optim.make_optimizer(
        config.optimizer, schedule, config.weight_decay, config.clip_norm
    )
    state = train_step.init_state(
        model, optimizer, config.seed, image_shape, config.ema_decay > 0
    )
    work = flops.of_model(model, state.params, image_shape)
    return Parts(model, optimizer, state, work, num_steps)


def make_trainer(
    config: Config,
    images: np.ndarray,
    labels: np.ndarray,
    devices: Sequence[jax.Device],
) -> Trainer:
    """The driver of a run.

    Args:
      config: of the run.
      images, labels: uint8 [N, H, W, 1] and int32 [N], all trained on.
      devices: where; they need not be of JAX's default platform.
    """
    num_classes = int(labels.max()) + 1
    parts = make_parts(config, len(images), images.shape[1:], num_classes)
    # Microbatches are for the caches of CPUs, and both sides are to do the same.
    make_step = training_setup.step_maker(config, parts.model, parts.optimizer, None)

    def order(epoch: int) -> np.ndarray:
        indices = np.arange(len(images))
        return batching.epoch_order(indices, config.batch_size, config.seed, epoch)

    return Trainer(
        make_step=make_step,
        state=jax.device_get(parts.state),
        hparams={"seed": np.uint32(config.seed)},
        images=images,
        labels=labels,
        order=order,
        num_steps=parts.num_steps,
        devices=devices,
    )


def same_bits(one: Any, other: Any) -> bool:
    """Whether two trees of arrays are the same."""
    leaves = jax.tree.leaves(one), jax.tree.leaves(other)
    return all(map(np.array_equal, *leaves))
