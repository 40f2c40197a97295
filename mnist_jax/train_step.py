"""One training step and one evaluation step: pure functions of arrays."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mnist_jax import augment, metrics, moving_averages
from mnist_jax.models.layers import largest_divisor

Array = jax.Array
Metrics = dict[str, Array]  # of one batch: 'loss' and `metrics.STEP_METRICS`

# By how many rows and columns --eval_views moves an image.
VIEWS = (
    *((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)),
    *((1, 1), (1, -1), (-1, 1), (-1, -1)),
)
_LEAST_PROBABILITY = 1e-30  # above float32's subnormal numbers


class Batch(NamedTuple):
    """One device's part of a global batch; b images on this device."""

    images: Array  # uint8 [b, H, W, 1], 0-255
    labels: Array  # int32 [b]
    keys: Array  # PRNG keys [b], see `image_keys`


class TrainState(NamedTuple):
    """All that changes in training; with the seed it decides the run's future."""

    step: Array  # int32 [], steps done
    params: Any
    opt_state: Any
    ema_params: Any = None  # their moving average, if there is one

    @property
    def eval_params(self) -> Any:
        """The params that are evaluated, and that make the model."""
        return self.params if self.ema_params is None else self.ema_params

    @classmethod
    def of_saved(cls, step: Any, eval_params: Any, opt_state: Any, params: Any) -> Self:
        """The inverse: `params` are None where they are what is evaluated."""
        if params is None:
            return cls(step, eval_params, opt_state)
        return cls(step, params, opt_state, eval_params)


TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def init_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    seed: int,
    image_shape: Sequence[int],
    has_ema: bool = False,
) -> TrainState:
    """The state before the first step, drawn from `seed`."""
    [state] = init_states(model, optimizer, [seed], image_shape, has_ema)
    return state


def init_states(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    seeds: Sequence[int],
    image_shape: Sequence[int],
    has_ema: bool = False,
) -> list[TrainState]:
    """The states before the first step, one for each seed."""

    # Runs once: without optimization it compiles in a third of the time.
    options = {"xla_backend_optimization_level": 0}

    @functools.partial(jax.jit, compiler_options=options)
    def init(seed):
        images = jnp.zeros((1, *image_shape), jnp.float32)
        key, _ = jax.random.split(jax.random.key(seed))
        params = model.init(key, images)["params"]
        opt_state = optimizer.init(params)
        return TrainState(jnp.int32(0), params, opt_state, params if has_ema else None)

    return [init(np.uint32(seed)) for seed in seeds]


@functools.cache  # to trace a model takes a tenth of a second
def init_params_shapes(model: nn.Module, image_shape: tuple[int, ...]) -> Any:
    """The params' shapes and dtypes, without computing them."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    key = jax.eval_shape(jax.random.key, 0)
    return jax.eval_shape(model.init, key, images)["params"]


def init_history(num_steps: int) -> dict[str, np.ndarray]:
    """The metrics of an epoch's steps before the first: float32 [S] by name."""
    names = ("loss", *metrics.STEP_METRICS)
    return {name: np.zeros(num_steps, np.float32) for name in names}


def image_keys(seed: Array, step: Array, positions: Array) -> Array:
    """The PRNG keys of a batch's images, functions of counters alone.

    Args:
      seed: uint32 [], the run's.
      step: int32 [], steps done.
      positions: int32 [b], places in the global batch.
    """
    _, key = jax.random.split(jax.random.key(seed))
    key = jax.random.fold_in(key, step)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(positions)


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    augmentation: Callable[[Array, Array], Array] = augment.none,
    label_smoothing: float | Array = 0.0,
    ema_decay: float = 0.0,
    distill: Callable[[Array], Callable[[Array], Array]] | None = None,
    distill_weight: float = 0.0,
    average: Callable[[Any], Any] = lambda tree: tree,
    microbatch_size: int | None = None,
) -> TrainStep:
    """Closes the step over what does not change.

    Args:
      model: takes float32 images and keys, returns logits.
      optimizer: an optax transformation.
      augmentation: (keys [b], float32 images) -> images.
      label_smoothing: see `metrics.cross_entropy`.
      ema_decay: of the moving average of the params, if the state has one.
      distill: images -> (logits -> float32 []), the loss of a student.
      distill_weight: share of that loss; the labels have the rest.
      average: mean over devices of a tree of arrays; nothing for one device.
      microbatch_size: for gradient accumulation; None for the whole batch.

    Returns:
      (state, batch) -> (state, metrics), where augmentation and dropout are drawn from
      the batch's keys, and the metrics are those of the batch before its own update.
    """

    def gradients(params, batch):
        augment_keys, dropout_keys = jax.vmap(jax.random.split, out_axes=1)(batch.keys)
        images = augmentation(augment_keys, to_float(batch.images))

        distill_loss = distill and distill(images)

        def loss_fn(params):
            sowing = [moving_averages.STATISTICS]
            logits, sown = model.apply(
                {"params": params}, images, dropout_keys, mutable=sowing
            )
            loss = metrics.cross_entropy(logits, batch.labels, label_smoothing)
            if distill_loss:
                loss += distill_weight * (distill_loss(logits) - loss)
            return loss, (logits, sown.get(moving_averages.STATISTICS, {}))

        value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (logits, statistics)), grads = value_and_grad(params)
        of_logits = {
            name: metric(logits, batch.labels)
            for name, metric in metrics.STEP_METRICS.items()
        }
        return grads, statistics, {"loss": loss, **of_logits}

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        mean = _mean_over_microbatches(
            lambda part: gradients(state.params, part), batch, microbatch_size
        )
        grads, statistics, batch_metrics = average(mean)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        params = moving_averages.of_statistics(
            params, state.params, statistics, state.step
        )
        ema_params = state.ema_params
        if ema_params is not None:
            ema_params = moving_averages.of_params(
                ema_params, params, ema_decay, state.step
            )
        return TrainState(state.step + 1, params, opt_state, ema_params), batch_metrics

    return train_step


def _mean_over_microbatches(
    function: Callable[[Batch], Any], batch: Batch, microbatch_size: int | None
) -> Any:
    """Mean of `function` over equal parts of a batch, one after the other."""
    size = len(batch.labels)
    num_parts = size // largest_divisor(size, microbatch_size or size)
    if num_parts == 1 or size < 4 * num_parts:  # parts of a few are no gain
        return function(batch)

    def add(total, part):
        return jax.tree.map(jnp.add, total, function(part)), None

    parts = jax.tree.map(lambda x: x.reshape(num_parts, -1, *x.shape[1:]), batch)
    shapes = jax.eval_shape(function, jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    total, _ = jax.lax.scan(add, zeros, parts)
    return jax.tree.map(lambda x: x / num_parts, total)


def make_eval_step(
    model: nn.Module, num_views: int = 1
) -> Callable[[Any, Array], Array]:
    """(params, uint8 images [b, H, W, 1]) -> logits float32 [b, K].

    Of several views of an image, moved by `VIEWS`, they are the logarithms of the mean
    probabilities.
    """

    def eval_step(params: Any, images: Array) -> Array:
        if num_views == 1:
            return model.apply({"params": params}, to_float(images))
        _, height, width, _ = images.shape
        padded = jnp.pad(to_float(images), ((0, 0), (1, 1), (1, 1), (0, 0)))
        views = [
            padded[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width]
            for y, x in VIEWS[:num_views]
        ]
        logits = model.apply({"params": params}, jnp.concatenate(views))
        probabilities = jax.nn.softmax(logits).reshape(num_views, len(images), -1)
        return jnp.log(jnp.maximum(probabilities.mean(0), _LEAST_PROBABILITY))

    return eval_step


def to_float(images: Array) -> Array:
    """uint8 0-255 -> float32 0-1, the same shape."""
    return images.astype(jnp.float32) / 255
