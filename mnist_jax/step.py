"""One training step and one evaluation step: pure functions of arrays."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mnist_jax import augment, metrics, optim
from mnist_jax.config import Config

Array = jax.Array


class Batch(NamedTuple):
    """One device's part of a global batch; b images on this device."""

    images: Array  # uint8 [b, 28, 28, 1], 0-255
    labels: Array  # int32 [b]
    positions: Array  # int32 [b], places in the global batch


class TrainState(NamedTuple):
    """All that changes in training; with the seed it decides the run's future."""

    step: Array  # int32 [], steps done
    params: Any
    opt_state: Any


class Metrics(NamedTuple):
    """Of one batch: float32 []; of a history of S steps: float32 [S]."""

    loss: Array
    accuracy: Array


# (state, batch, seed uint32 []) -> (state, metrics)
TrainStep = Callable[[TrainState, Batch, Array], tuple[TrainState, Metrics]]
# (state, batch, hyper-parameters by name) -> (state, metrics)
LaneStep = Callable[
    [TrainState, Batch, Mapping[str, Array]], tuple[TrainState, Metrics]
]

# What may differ from lane to lane of one program; all numbers, none a shape.
LANE_SETTINGS = (
    "learning_rate",
    "weight_decay",
    "label_smoothing",
    "dropout",
    "seed",
)


def init_state(
    model: nn.Module, optimizer: optax.GradientTransformation, seed: int
) -> TrainState:
    """The state before the first step, drawn from `seed`."""

    [state] = init_states(model, optimizer, [seed])
    return state


def init_states(
    model: nn.Module, optimizer: optax.GradientTransformation, seeds: Sequence[int]
) -> list[TrainState]:
    """The states before the first step, one for each seed."""

    # Runs once: without optimization it compiles in a third of the time.
    options = {"xla_backend_optimization_level": 0}

    @functools.partial(jax.jit, compiler_options=options)
    def init(seed):
        images = jnp.zeros((1, 28, 28, 1), jnp.float32)
        key, _ = jax.random.split(jax.random.key(seed))
        params = model.init(key, images)["params"]
        return TrainState(jnp.int32(0), params, optimizer.init(params))

    return [init(np.uint32(seed)) for seed in seeds]


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    augmentation: str = "none",
    label_smoothing: float | Array = 0.0,
    average: Callable[[Any], Any] = lambda tree: tree,
    most_at_once: int | None = None,
) -> TrainStep:
    """Closes the step over what does not change.

    Args:
      model: takes float32 images and keys, returns logits.
      optimizer: an optax transformation.
      augmentation: 'none', 'shift' or 'affine'.
      label_smoothing: see `metrics.cross_entropy`.
      average: mean over devices of a tree of arrays; nothing for one device.
      most_at_once: images to work out the gradient of at a time, whose means are then
        averaged: the same step, on less memory. None for the whole batch.

    Returns:
      (state, batch, seed) -> (state, metrics), where augmentation and dropout are
      drawn from the seed, and the metrics are those of the batch before its own update.
    """

    def gradients(params, key, batch):
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(batch.positions)
        augment_keys, dropout_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
        images = to_float(batch.images)
        images = augment.augment(augmentation, augment_keys, images)

        def loss_fn(params):
            logits = model.apply({"params": params}, images, dropout_keys)
            loss = metrics.cross_entropy(logits, batch.labels, label_smoothing)
            return loss, logits

        (loss, logits), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        return grads, Metrics(loss, metrics.accuracy(logits, batch.labels))

    def train_step(
        state: TrainState, batch: Batch, seed: Array
    ) -> tuple[TrainState, Metrics]:
        _, key = jax.random.split(jax.random.key(seed))
        key = jax.random.fold_in(key, state.step)
        mean = _mean_over_parts(
            lambda part: gradients(state.params, key, part), batch, most_at_once
        )
        grads, batch_metrics = average(mean)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, opt_state), batch_metrics

    return train_step


def make_lane_step(
    model: nn.Module, config: Config, num_steps: int, most_at_once: int | None = None
) -> LaneStep:
    """`make_train_step` of `config`, but for what is an input of the program.

    Args:
      model: as `config` has it.
      config: what all lanes share.
      num_steps: of the whole run.
      most_at_once: see `make_train_step`.

    Returns:
      (state, batch, hyper) -> (state, metrics), where `hyper` holds those of
      `LANE_SETTINGS` that differ from lane to lane, the seed among them.
    """
    # All schedules are proportional to their rate.
    shape = optim.make_schedule(config.schedule, 1.0, num_steps)

    def lane_step(state, batch, hyper):
        rate = hyper.get("learning_rate", config.learning_rate)
        optimizer = optim.make_optimizer(
            config, lambda step: rate * shape(step), hyper.get("weight_decay")
        )
        lane = model
        if "dropout" in hyper:
            lane = model.clone(dropout=hyper["dropout"])
        train_step = make_train_step(
            lane,
            optimizer,
            augmentation=config.augment,
            label_smoothing=hyper.get("label_smoothing", config.label_smoothing),
            most_at_once=most_at_once,
        )
        return train_step(state, batch, hyper["seed"])

    return lane_step


def _mean_over_parts(
    function: Callable[[Batch], Any], batch: Batch, most_at_once: int | None
) -> Any:
    """Mean of `function` over equal parts of a batch, one after the other."""
    size = len(batch.labels)
    num_parts = -(-size // (most_at_once or size))
    while size % num_parts:
        num_parts += 1
    if num_parts == 1 or size < 4 * num_parts:  # parts of a few are no gain
        return function(batch)

    def add(total, part):
        return jax.tree.map(jnp.add, total, function(part)), None

    parts = jax.tree.map(lambda x: x.reshape(num_parts, -1, *x.shape[1:]), batch)
    shapes = jax.eval_shape(function, jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    total, _ = jax.lax.scan(add, zeros, parts)
    return jax.tree.map(lambda x: x / num_parts, total)


def make_eval_step(model: nn.Module) -> Callable[[Any, Array], Array]:
    """(params, uint8 images [b, 28, 28, 1]) -> logits float32 [b, 10]."""

    def eval_step(params: Any, images: Array) -> Array:
        return model.apply({"params": params}, to_float(images))

    return eval_step


def to_float(images: Array) -> Array:
    """uint8 0-255 -> float32 0-1, the same shape."""
    return images.astype(jnp.float32) / 255
