"""Compiled training and evaluation of one run on all its devices."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mnist_jax.step import Batch, Metrics, TrainState, TrainStep

Array = jax.Array

AXIS = "batch"
EVALUATION_BATCH = 100  # images per device at a time


def average(tree: Any) -> Any:
    """Mean over the devices of float32 arrays; only inside a program of this file.

    One exchange of all arrays end to end: the devices wait for each other once, not
    once per array, which for small models is most of a step.
    """
    if jax.lax.axis_size(AXIS) == 1:
        return tree
    leaves, treedef = jax.tree.flatten(tree)
    ends = np.cumsum([leaf.size for leaf in leaves])
    # Written one after the other into a buffer, at places that XLA cannot foresee. It
    # would make a concatenation of them, which its CPU compiler fuses with what comes
    # before, and so works out the loss again for every element of every gradient.
    zero = jnp.minimum(0, jax.lax.axis_index(AXIS))
    flat = jnp.zeros(ends[-1], jnp.float32)
    for leaf, end in zip(leaves, ends, strict=True):
        place = (end - leaf.size + zero,)
        flat = jax.lax.dynamic_update_slice(flat, leaf.ravel(), place)
    flat = jax.lax.pmean(flat, AXIS)
    parts = [
        flat[end - leaf.size : end].reshape(leaf.shape)
        for leaf, end in zip(leaves, ends, strict=True)
    ]
    return jax.tree.unflatten(treedef, parts)


def replicate(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """Places a copy of every array on every device, as the programs here expect."""
    return _place(tree, devices, jax.sharding.PartitionSpec())


def distribute(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """Puts arrays [D, ..] on the devices, a part of the first axis on each."""
    return _place(tree, devices, jax.sharding.PartitionSpec(AXIS))


def _place(tree, devices, spec):
    mesh = jax.sharding.Mesh(np.array(devices), (AXIS,))
    sharding = jax.sharding.NamedSharding(mesh, spec)
    if len(local_devices(devices)) == len(devices):
        return jax.device_put(tree, sharding)

    def place(x):
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda part: x[part])

    # `device_put` would first compare what all processes have.
    return jax.tree.map(place, tree)


def pick_batch(images: Array, labels: Array, rows: Array, positions: Array) -> Batch:
    """The batch of these rows of the data set, which hold no others."""
    images, labels = (
        x.at[rows].get(mode="promise_in_bounds") for x in (images, labels)
    )
    return Batch(images, labels, positions)


def local_devices(devices: Sequence[jax.Device]) -> list[jax.Device]:
    """Those that belong to this process."""
    return [d for d in devices if d.process_index == jax.process_index()]


def split_order(order: np.ndarray, num_devices: int) -> np.ndarray:
    """Deals global batches out: int32 [S, B] -> [D, S, B / D]."""
    num_steps, batch_size = order.shape
    parts = order.reshape(num_steps, num_devices, batch_size // num_devices)
    return np.ascontiguousarray(parts.swapaxes(0, 1))


def own_part(parts: np.ndarray, devices: Sequence[jax.Device]) -> np.ndarray:
    """Of arrays [D, ..], one for each device: those of this process's devices."""
    return parts[[d.process_index == jax.process_index() for d in devices]]


def make_train_chunk(
    train_step: TrainStep, devices: Sequence[jax.Device]
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Compiles many training steps into one program.

    The number of steps is an argument of the program, not a constant in it: chunks
    of any length share one compilation, and `start == stop` compiles and changes
    nothing.

    Args:
      train_step: averages its gradients by `average`.
      devices: where to run.

    Returns:
      (state, history, images, labels, seed, order, start, stop) -> (state, history):
        state: TrainState, donated.
        history: Metrics [S] of the epoch, donated; entries start to stop are set.
        images, labels: the whole data set, uint8 [N, 28, 28, 1] and int32 [N].
        seed: uint32 [], the run's; another one needs no other program.
        order: int32 [d, S, B / D], see `split_order`; rows of the data set, of the d
          of D devices that are this process's.
        start, stop: int32 [], the steps of the epoch to do.
    """

    def chunk(state, history, images, labels, seed, order, start, stop):
        batch_size = order.shape[-1]
        positions = jax.lax.axis_index(AXIS) * batch_size + jnp.arange(batch_size)

        def body(i, carry):
            state, history = carry
            batch = pick_batch(images, labels, order[i], positions)
            state, metrics = train_step(state, batch, seed)
            history = jax.tree.map(lambda h, m: h.at[i].set(m), history, metrics)
            return state, history

        return jax.lax.fori_loop(start, stop, body, (state, history))

    return jax.pmap(
        chunk,
        axis_name=AXIS,
        in_axes=(None, None, None, None, None, 0, None, None),
        out_axes=None,
        devices=devices,
        donate_argnums=(0, 1),
    )


def make_predict(
    eval_step: Callable[[Any, Array], Array],
    devices: Sequence[jax.Device],
    batch_size: int = EVALUATION_BATCH,
) -> Callable[[Any, np.ndarray], np.ndarray]:
    """Compiles evaluation of a set of images of any size, once for all sizes.

    Args:
      eval_step: (params, images uint8 [b, 28, 28, 1]) -> logits float32 [b, K].
      devices: where to run; those of other processes are left to these.
      batch_size: images per device at a time.

    Returns:
      (params, images uint8 [N, 28, 28, 1]) -> logits float32 [N, K]. The last batch
      is filled up with blank images, whose logits are dropped.
    """

    devices = local_devices(devices)
    # No device waits for another here. Several calls are under way at a time, and on
    # CPU devices that wait in different calls can leave no thread to go on with.
    predict_batch = jax.pmap(
        eval_step, axis_name=AXIS, in_axes=(None, 0), out_axes=0, devices=devices
    )

    def predict(params: Any, images: np.ndarray) -> np.ndarray:
        if jax.process_count() > 1:
            params = replicate(jax.device_get(params), devices)
        block = len(devices) * batch_size
        padded = np.zeros((-(-len(images) // block) * block, 28, 28, 1), np.uint8)
        padded[: len(images)] = images
        blocks = padded.reshape(-1, len(devices), batch_size, 28, 28, 1)
        logits = [predict_batch(params, one) for one in blocks]
        return np.concatenate([np.asarray(x).reshape(block, -1) for x in logits])[
            : len(images)
        ]

    return predict
