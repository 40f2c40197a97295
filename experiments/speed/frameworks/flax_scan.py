"""Plain Flax and optax, tuned: the data set on the device, an epoch as one call.

The layers and the step are those of `flax_linen`, and the rnn is unrolled. The call
scans the step over batches that it gathers by index, and reuses the state's memory. The
cnn has a call for each step: in a loop, XLA's convolutions on CPU are slower.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.speed import timing
from experiments.speed.frameworks import flax_linen, protocol


def build(task: protocol.Task) -> protocol.Benchmark:
    state = flax_linen.create_state(task.model, unroll=task.model == "rnn")
    # Donation wants arrays that share no buffer.
    state = jax.tree.map(jnp.copy, state)
    images = jax.device_put(protocol.to_float(task.images))
    labels = jax.device_put(task.labels)
    rng = np.random.default_rng(0)

    def train_epoch():
        nonlocal state
        order = rng.permutation(len(images))[: task.num_steps * task.batch_size]
        order = order.reshape(task.num_steps, task.batch_size).astype(np.int32)
        if task.model == "cnn":
            losses = []
            for indices in order:
                state, loss = train_step(state, images, labels, indices)
                losses.append(loss)
        else:
            state, losses = train_steps(state, images, labels, order)
        return float(np.mean(jax.device_get(losses)))

    return protocol.Benchmark(
        run_epoch=timing.timed(train_epoch),
        num_params=sum(x.size for x in jax.tree.leaves(state.params)),
        versions=flax_linen.VERSIONS,
    )


@functools.partial(jax.jit, donate_argnums=0)
def train_step(state, images, labels, indices):
    """(state, float32 [N, 28, 28, 1], int32 [N], int32 [B]) -> (state, loss)."""
    state, metrics = flax_linen.train_step(state, images[indices], labels[indices])
    return state, metrics["loss"]


@functools.partial(jax.jit, donate_argnums=0)
def train_steps(state, images, labels, order):
    """As `train_step`; order: int32 [steps, B] -> (state, float32 [steps])."""
    return jax.lax.scan(
        lambda state, indices: train_step(state, images, labels, indices), state, order
    )


if __name__ == "__main__":
    protocol.serve(build)
