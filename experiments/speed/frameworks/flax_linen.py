"""Plain Flax, as its own MNIST example is written: one compiled step per batch."""

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training import train_state

from experiments.speed import timing
from experiments.speed.frameworks import families, protocol

VERSIONS = {
    "jax": jax.__version__,
    "flax": flax.__version__,
    "optax": optax.__version__,
}
_CELLS = {"rnn": nn.SimpleCell, "lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell}


class MLP(nn.Module):
    """float32 [B, 28, 28, 1] -> logits [B, 10]; no hidden size is linear."""

    hidden_sizes: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, x):
        x = x.reshape((x.shape[0], -1))
        for size in self.hidden_sizes:
            x = nn.relu(nn.Dense(size)(x))
        return nn.Dense(families.NUM_CLASSES)(x)


class CNN(nn.Module):
    """float32 [B, 28, 28, 1] -> logits [B, 10]."""

    @nn.compact
    def __call__(self, x):
        for features in (32, 64):
            x = nn.relu(nn.Conv(features, (3, 3), padding="VALID")(x))
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = x.reshape((x.shape[0], -1))
        return nn.Dense(families.NUM_CLASSES)(x)


class Recurrent(nn.Module):
    """float32 [B, 28, 28, 1], read row by row -> logits [B, 10]."""

    cell: str
    unroll: int = 1

    @nn.compact
    def __call__(self, x):
        cell = _CELLS[self.cell](families.UNITS)
        x = nn.RNN(cell, unroll=self.unroll)(x[..., 0])  # [B, 28, units]
        return nn.Dense(families.NUM_CLASSES)(x[:, -1])


def build(task: protocol.Task) -> protocol.Benchmark:
    state = create_state(task.model)
    images, labels = protocol.to_float(task.images), task.labels
    rng = np.random.default_rng(0)

    def train_epoch():
        nonlocal state
        order = rng.permutation(len(images))[: task.num_steps * task.batch_size]
        batch_metrics = []
        for indices in order.reshape(task.num_steps, task.batch_size):
            state, metrics = train_step(state, images[indices], labels[indices])
            batch_metrics.append(metrics)
        batch_metrics = jax.device_get(batch_metrics)
        return float(np.mean([metrics["loss"] for metrics in batch_metrics]))

    return protocol.Benchmark(
        run_epoch=timing.timed(train_epoch),
        num_params=sum(x.size for x in jax.tree.leaves(state.params)),
        versions=VERSIONS,
    )


def create_state(name: str, unroll: bool = False) -> train_state.TrainState:
    """The model and Adam, before the first step."""
    if name == "cnn":
        model = CNN()
    elif name in _CELLS:
        model = Recurrent(name, unroll=28 if unroll else 1)
    else:
        model = MLP((families.HIDDEN,) if name == "mlp" else ())
    params = model.init(jax.random.key(0), jnp.ones((1, 28, 28, 1)))["params"]
    return train_state.TrainState.create(
        apply_fn=model.apply, params=params, tx=optax.adam(families.LEARNING_RATE)
    )


@jax.jit
def train_step(state: train_state.TrainState, images, labels):
    """(state, float32 [B, 28, 28, 1], int32 [B]) -> (state, metrics)."""

    def loss_fn(params):
        logits = state.apply_fn({"params": params}, images)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), logits

    (loss, logits), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    accuracy = (logits.argmax(-1) == labels).mean()
    return state.apply_gradients(grads=grads), {"loss": loss, "accuracy": accuracy}


if __name__ == "__main__":
    protocol.serve(build)
