"""The compiled programs: many training steps, and evaluation, by `jax.pmap`.

Of one run every device holds the whole data set and the same state, and takes its own
shard of each global batch. The state carries no replica axis (`in_axes=None`,
`out_axes=None`), so what a run saves does not depend on how many devices it used.
Gradients are averaged in one place, `average`. Of vectorized runs each device trains
its own members, and there is nothing to average: arrays are [D, m, ..], m members on
each of D devices.
"""

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mnist_jax.parallel.placement import AXIS, local_devices, replicate
from mnist_jax.train_step import Batch, TrainStep, image_keys

Array = jax.Array
# Of the swept hyperparameters, which are traced arguments; 'seed' uint32 [] is always
# among them.
MakeStep = Callable[[Mapping[str, Array]], TrainStep]

EVALUATION_BATCH = 100  # images per device at a time
_MOST_UNDER_WAY = 32  # batches sent to the devices, of which all images take memory


def average(tree: Any) -> Any:
    """Mean over the devices of float32 arrays; only inside a program of this file.

    One all-reduce of all arrays end to end: the devices wait for each other once, not
    once per array, which for small models is most of a step.
    """
    if jax.lax.axis_size(AXIS) == 1:
        return tree
    leaves, treedef = jax.tree.flatten(tree)
    ends = np.cumsum([leaf.size for leaf in leaves])
    # Written one after the other into a buffer, at places that XLA cannot foresee. It
    # would make a concatenation of them, which its CPU compiler fuses with what comes
    # before, and so computes the loss again for every element of every gradient.
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


def make_train_chunk(
    make_step: MakeStep, devices: Sequence[jax.Device], has_blocks: bool = False
) -> Callable[..., tuple[Any, Any]]:
    """Compiles many training steps of one run into one program.

    The number of steps is an argument of the program, not a constant in it: chunks
    of any length share one compilation, and `start == stop` compiles and changes
    nothing.

    Args:
      make_step: hyperparameters -> a step that averages its gradients by `average`.
      devices: where to run.
      has_blocks: whether each device has images of its own, see `feed.Feed`.

    Returns:
      (state, history, hparams, images, labels, order, start, stop) -> (state, history):
        state: TrainState, donated.
        history: metrics of the epoch's steps, float32 [S] by name, donated; entries
          start to stop are set.
        hparams: {'seed': uint32 []}, and what else `make_step` takes of it.
        images, labels: the whole data set, uint8 [N, H, W, 1] and int32 [N]; or
          blocks, with a first axis [d].
        order: int32 [d, S, B / D], see `shard_order`; indices of these images, of the d
          of D devices that are this process's.
        start, stop: int32 [], the steps of the epoch to do.
    """

    def chunk(state, history, hparams, images, labels, order, start, stop):
        train_step = make_step(hparams)
        batch_size = order.shape[-1]
        positions = jax.lax.axis_index(AXIS) * batch_size + jnp.arange(batch_size)

        def body(i, carry):
            state, history = carry
            keys = image_keys(hparams["seed"], state.step, positions)
            batch = gather_batch(images, labels, order[i], keys)
            state, metrics = train_step(state, batch)
            history = jax.tree.map(lambda h, m: h.at[i].set(m), history, metrics)
            return state, history

        return jax.lax.fori_loop(start, stop, body, (state, history))

    images_axis = 0 if has_blocks else None
    return jax.pmap(
        chunk,
        axis_name=AXIS,
        in_axes=(None, None, None, images_axis, images_axis, 0, None, None),
        out_axes=None,
        devices=devices,
        donate_argnums=(0, 1),
    )


def make_vectorized_chunk(
    make_step: MakeStep, devices: Sequence[jax.Device], group_size: int
) -> Callable[..., tuple[Any, Any]]:
    """Compiles many training steps of many independent runs into one program.

    Args:
      make_step: one member's hyperparameters -> its step.
      devices: where to run.
      group_size: members that a device trains step by step together, by `vmap`; it
        does all steps of one group, then of the next. Divides m.

    Returns:
      As `make_train_chunk`, for arrays [D, m, ..] of state, history and hparams, and
      order int32 [D, m, S, B].
    """

    def chunk(state, history, hparams, images, labels, order, start, stop):
        positions = jnp.arange(order.shape[-1])

        def advance(state, history, hparams, order, i):
            keys = image_keys(hparams["seed"], state.step, positions)
            batch = gather_batch(images, labels, order[i], keys)
            state, metrics = make_step(hparams)(state, batch)
            history = jax.tree.map(lambda h, m: h.at[i].set(m), history, metrics)
            return state, history

        # One member by itself has no axis of members: `vmap` makes other matmuls, and
        # an axis of 1 makes copies of its state.
        together = group_size > 1
        if together:
            advance = jax.vmap(advance, in_axes=(0, 0, 0, 0, None))

        def train_group(group):
            state, history, hparams, order = group
            return jax.lax.fori_loop(
                start,
                stop,
                lambda i, carry: advance(*carry, hparams, order, i),
                (state, history),
            )

        groups = state, history, hparams, order
        if not together:
            return jax.lax.map(train_group, groups)
        groups = jax.tree.map(lambda x: x.reshape(-1, group_size, *x.shape[1:]), groups)
        trained = jax.lax.map(train_group, groups)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), trained)

    return jax.pmap(
        chunk,
        axis_name=AXIS,
        in_axes=(0, 0, 0, None, None, 0, None, None),
        devices=devices,
        donate_argnums=(0, 1),
    )


def gather_batch(images: Array, labels: Array, indices: Array, keys: Array) -> Batch:
    """The batch of these indices, all of which are inside the data set."""
    images, labels = (
        x.at[indices].get(mode="promise_in_bounds") for x in (images, labels)
    )
    return Batch(images, labels, keys)


def make_predict(
    eval_step: Callable[[Any, Array], Array],
    devices: Sequence[jax.Device],
    batch_size: int = EVALUATION_BATCH,
) -> Callable[[Any, np.ndarray], np.ndarray]:
    """Compiles evaluation of a set of images of any size, once for all sizes.

    Args:
      eval_step: (params, images uint8 [b, H, W, 1]) -> float32 [b, ..], as logits.
      devices: where to run; those of other processes are left to these.
      batch_size: images per device at a time.

    Returns:
      (params, images uint8 [N, H, W, 1], indices int [M]) -> float32 [M, ..], of those
      images or, without indices, of all. The last batch is padded with blank images,
      whose results are dropped.
    """
    devices = local_devices(devices)
    # No device waits for another here. Several calls are under way at a time, and on
    # CPU devices that wait in different calls can leave no thread to go on with.
    predict_batch = jax.pmap(
        eval_step, axis_name=AXIS, in_axes=(None, 0), out_axes=0, devices=devices
    )

    def predict(
        params: Any, images: np.ndarray, indices: np.ndarray | None = None
    ) -> np.ndarray:
        if jax.process_count() > 1:
            params = replicate(jax.device_get(params), devices)
        block, shape = len(devices) * batch_size, images.shape[1:]
        count = len(images) if indices is None else len(indices)
        results, under_way = [], collections.deque()
        for first in range(0, max(count, 1), block):
            part = slice(first, first + block)
            own = images[part] if indices is None else images[indices[part]]
            padded = np.zeros((len(devices), batch_size, *shape), np.uint8)
            padded.reshape(block, *shape)[: len(own)] = own
            under_way.append(predict_batch(params, padded))
            if len(under_way) > _MOST_UNDER_WAY:
                results.append(np.asarray(under_way.popleft()))
        results += [np.asarray(x) for x in under_way]
        return np.concatenate([x.reshape(block, *x.shape[2:]) for x in results])[:count]

    return predict


def make_vectorized_predict(
    eval_step: Callable[[Any, Array], Array], devices: Sequence[jax.Device]
) -> Callable[..., Array]:
    """Compiles evaluation of all members of vectorized runs.

    Args:
      eval_step: (params, images uint8 [b, H, W, 1]) -> logits float32 [b, K].
      devices: where to run.

    Returns:
      (params, images, indices) -> logits float32 [D, m, M, K]:
        params: arrays [D, m, ..].
        images: uint8 [N, H, W, 1].
        indices: int32 [D, m, M], each member's own, of the images.
    """

    def predict(params, images, indices):
        def one(member):
            params, indices = member
            blocks = -(-len(indices) // EVALUATION_BATCH)
            padded = jnp.pad(indices, (0, blocks * EVALUATION_BATCH - len(indices)))
            logits = jax.lax.map(
                lambda block: eval_step(params, images[block]),
                padded.reshape(blocks, EVALUATION_BATCH),
            )
            return logits.reshape(-1, logits.shape[-1])[: len(indices)]

        return jax.lax.map(one, (params, indices))

    return jax.pmap(predict, axis_name=AXIS, in_axes=(0, None, 0), devices=devices)
