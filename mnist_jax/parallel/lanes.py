"""Many independent runs in one compiled program.

A lane is a run of its own: state, hyper-parameters, seed and order of images. Arrays
of lanes are [D, l, ..]: l lanes on each of D devices, which have nothing to exchange.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mnist_jax.parallel.chunks import AXIS, EVALUATION_BATCH, pick_batch
from mnist_jax.step import LaneStep

Array = jax.Array


def spread_lanes(tree: Any, num_devices: int) -> Any:
    """Deals lanes out: arrays [L, ..] -> [D, l, ..]; the last fills up what is left."""

    def spread(x):
        x = np.asarray(x)
        rows = np.minimum(
            np.arange(-(-len(x) // num_devices) * num_devices), len(x) - 1
        )
        return x[rows].reshape(num_devices, -1, *x.shape[1:])

    return jax.tree.map(spread, tree)


def make_lane_chunk(
    lane_step: LaneStep, devices: Sequence[jax.Device], group_size: int
) -> Callable[..., tuple[Any, Any]]:
    """Compiles many training steps of many lanes into one program.

    Args:
      lane_step: one step of one lane.
      devices: where to run.
      group_size: lanes that a device takes step by step together, by `vmap`; it does
        all steps of one group, then of the next. Divides l.

    Returns:
      (state, history, hyper, images, labels, order, start, stop) -> (state, history):
        state: TrainState of arrays [D, l, ..], donated.
        history: Metrics [D, l, S] of the epoch, donated.
        hyper: dict of arrays [D, l].
        images, labels: the whole data set, uint8 [N, 28, 28, 1] and int32 [N].
        order: int32 [D, l, S, B], rows of the data set.
        start, stop: int32 [], the steps of the epoch to do.
    """

    def chunk(state, history, hyper, images, labels, order, start, stop):
        positions = jnp.arange(order.shape[-1])

        def step(state, hyper, rows):
            batch = pick_batch(images, labels, rows, positions)
            return lane_step(state, batch, hyper)

        def step_group(*lanes):
            if group_size > 1:
                return jax.vmap(step)(*lanes)
            # Without `vmap`, which makes other products of one lane's.
            one = step(*jax.tree.map(lambda x: x[0], lanes))
            return jax.tree.map(lambda x: x[None], one)

        def train_group(group):
            state, history, hyper, order = group

            def body(i, carry):
                state, history = carry
                state, metrics = step_group(state, hyper, order[:, i])
                history = jax.tree.map(lambda h, m: h.at[:, i].set(m), history, metrics)
                return state, history

            return jax.lax.fori_loop(start, stop, body, (state, history))

        lanes = state, history, hyper, order
        groups = jax.tree.map(lambda x: x.reshape(-1, group_size, *x.shape[1:]), lanes)
        trained = jax.lax.map(train_group, groups)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), trained)

    return jax.pmap(
        chunk,
        axis_name=AXIS,
        in_axes=(0, 0, 0, None, None, 0, None, None),
        devices=devices,
        donate_argnums=(0, 1),
    )


def make_lane_predict(
    eval_step: Callable[[Any, Array], Array], devices: Sequence[jax.Device]
) -> Callable[..., Array]:
    """Compiles evaluation of all lanes.

    Args:
      eval_step: (params, images uint8 [b, 28, 28, 1]) -> logits float32 [b, K].
      devices: where to run.

    Returns:
      (params, images, rows) -> logits float32 [D, l, M, K]:
        params: arrays [D, l, ..].
        images: uint8 [N, 28, 28, 1].
        rows: int32 [D, l, M], each lane's own rows of the images.
    """

    def predict(params, images, rows):
        def one(lane):
            params, rows = lane
            blocks = -(-len(rows) // EVALUATION_BATCH)
            padded = jnp.pad(rows, (0, blocks * EVALUATION_BATCH - len(rows)))
            logits = jax.lax.map(
                lambda block: eval_step(params, images[block]),
                padded.reshape(blocks, EVALUATION_BATCH),
            )
            return logits.reshape(-1, logits.shape[-1])[: len(rows)]

        return jax.lax.map(one, (params, rows))

    return jax.pmap(predict, axis_name=AXIS, in_axes=(0, None, 0), devices=devices)
