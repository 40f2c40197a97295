"""The classifiers, as Flax linen modules, and their registry.

Each takes images float32 [B, 28, 28, 1] in 0 to 1 and returns logits float32
[B, 10]. Training passes `keys`, one PRNG key per image, which dropout draws from;
without keys nothing is dropped. To add a model, write a module here whose fields
have the names of the settings in `config.Config` that it reads, and enter it in
`MODELS`.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from mnist_jax.config import Config, ConfigError
from mnist_jax.ops import recurrent
from mnist_jax.ops.convolution import conv_pool

Array = jax.Array

NUM_CLASSES = 10


class Dense(nn.Module):
    """x W^T + b, [.., inputs] -> [.., units], with one row of W for each unit.

    `nn.Dense` has W the other way round, and with it XLA's CPU products take two to
    three times as long where the units are few. First values are those of `nn.Dense`.
    """

    units: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.units, x.shape[-1])
        kernel = self.param("kernel", _lecun_rows, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.units,))
        return jnp.einsum("...i,ui->...u", x, kernel) + bias


class Linear(nn.Module):
    """Softmax regression: one product with all pixels."""

    @nn.compact
    def __call__(self, images: Array, keys: Array | None = None) -> Array:
        return Dense(NUM_CLASSES)(_flatten(images))


class MLP(nn.Module):
    """Dense layers with ReLU, each followed by dropout."""

    hidden_sizes: tuple[int, ...] = (512, 256)
    dropout: float = 0.2

    @nn.compact
    def __call__(self, images: Array, keys: Array | None = None) -> Array:
        x = _flatten(images)
        for i, size in enumerate(self.hidden_sizes):
            x = nn.relu(Dense(size)(x))
            x = drop(x, self.dropout, keys, i)
        return Dense(NUM_CLASSES)(x)


class ConvPool(nn.Module):
    """3x3 convolution without padding, 2x2 max-pool, bias, ReLU.

    [C, H, W, B] -> [features, (H - 2) // 2, (W - 2) // 2, B].
    """

    features: int

    @nn.compact
    def __call__(self, images: Array) -> Array:
        shape = (3, 3, len(images), self.features)
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return nn.relu(conv_pool(images, kernel) + bias[:, None, None, None])


class CNN(nn.Module):
    """The simple MNIST convnet of the Keras examples: 34,826 parameters.

    https://keras.io/examples/vision/mnist_convnet/
    """

    dropout: float = 0.5

    @nn.compact
    def __call__(self, images: Array, keys: Array | None = None) -> Array:
        x = ConvPool(32)(images.transpose(3, 1, 2, 0))  # [32, 13, 13, B]
        x = ConvPool(64)(x)  # [64, 5, 5, B]
        x = drop(_flatten(x.transpose(3, 1, 2, 0)), self.dropout, keys, 0)
        return Dense(NUM_CLASSES)(x)


class RecurrentLayer(nn.Module):
    """One recurrence over time: [T, B, F] -> [T, B, units] or the last [B, units].

    Attributes:
      cell: 'rnn', 'lstm' or 'gru'; the equations are in `ops/recurrent.py`.
      units: size of the hidden state.
      last_only: whether to return only the state after the last step.
      reverse: whether to read the sequence from its end.
    """

    cell: str
    units: int
    last_only: bool
    reverse: bool = False

    @nn.compact
    def __call__(self, sequence: Array) -> Array:
        num_gates = {"rnn": 1, "lstm": 4, "gru": 3}[self.cell]
        width = num_gates * self.units
        kernel = self.param(
            "input_kernel", _per_gate(nn.initializers.glorot_uniform(), num_gates),
            (sequence.shape[-1], width),
        )  # fmt: skip
        recurrent_kernel = self.param(
            "recurrent_kernel", _per_gate(nn.initializers.orthogonal(), num_gates),
            (self.units, width),
        )  # fmt: skip
        # The forget gate starts open, so that gradients reach the first rows from
        # the first step on (Jozefowicz et al., 2015).
        bias_init = _forget_one if self.cell == "lstm" else nn.initializers.zeros
        bias = self.param("bias", bias_init, (width,))

        if self.reverse:
            sequence = sequence[::-1]
        hidden_bias = None
        if self.cell == "gru":
            hidden_bias = self.param("hidden_bias", nn.initializers.zeros, self.units)
        weights = recurrent.Weights(kernel, recurrent_kernel, bias, hidden_bias)
        run = getattr(recurrent, self.cell)
        hidden = run(sequence, weights, last_only=self.last_only)
        # Backwards states are returned in the order of the sequence.
        return hidden[::-1] if self.reverse and not self.last_only else hidden


class Recurrent(nn.Module):
    """An image read as a sequence; the last state goes to the logits.

    Attributes:
      cell: 'rnn', 'lstm' or 'gru'.
      units: size of each hidden state.
      layers: recurrences on top of each other.
      bidirectional: whether each layer also reads the sequence from its end.
      dropout: share of each layer's output that is dropped in training.
      sequence: 'rows' (28 steps of 28 pixels), 'columns' (likewise) or 'pixels'
        (784 steps of one).
    """

    cell: str
    units: int = 128
    layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.0
    sequence: str = "rows"

    @nn.compact
    def __call__(self, images: Array, keys: Array | None = None) -> Array:
        x = _as_sequence(images, self.sequence)
        directions = (False, True) if self.bidirectional else (False,)
        for i in range(self.layers):
            last_only = i == self.layers - 1
            outputs = [
                RecurrentLayer(self.cell, self.units, last_only, reverse)(x)
                for reverse in directions
            ]
            x = jnp.concatenate(outputs, axis=-1) if self.bidirectional else outputs[0]
            x = drop(x, self.dropout, keys, i, axis=x.ndim - 2)
        return Dense(NUM_CLASSES)(x)


class RNN(Recurrent):
    cell: str = "rnn"


class LSTM(Recurrent):
    cell: str = "lstm"


class GRU(Recurrent):
    cell: str = "gru"


MODELS: dict[str, type[nn.Module]] = {
    "linear": Linear,
    "mlp": MLP,
    "cnn": CNN,
    "rnn": RNN,
    "lstm": LSTM,
    "gru": GRU,
}

# The settings in Config that belong to a model, and not to its training.
MODEL_SETTINGS = (
    "hidden_sizes",
    "dropout",
    "units",
    "layers",
    "bidirectional",
    "sequence",
)


def build_model(config: Config) -> nn.Module:
    """The module that `config` names, with its settings.

    Raises:
      ConfigError: no such model, or a setting that this model does not have.
    """
    if config.model not in MODELS:
        raise ConfigError(
            f"--model={config.model}: expected one of {', '.join(MODELS)}"
        )
    module = MODELS[config.model]
    has = {field.name for field in dataclasses.fields(module)} & set(MODEL_SETTINGS)
    given = {
        name: getattr(config, name)
        for name in MODEL_SETTINGS
        if getattr(config, name) is not None
    }
    for name in given:
        if name not in has:
            owns = ", ".join(f"--{n}" for n in MODEL_SETTINGS if n in has) or "none"
            raise ConfigError(
                f"--{name} is not a setting of --model={config.model}: "
                f"leave it out (its own settings: {owns})"
            )
    return module(**given)


def drop(x: Array, rate: float, keys: Array | None, layer: int, axis: int = 0) -> Array:
    """Dropout (Srivastava et al., 2014) whose masks are drawn image by image.

    Flax's own draws one mask for the whole batch, which then depends on how the
    batch is spread over devices.

    Args:
      x: float32, with the images on `axis`.
      rate: share of the values set to 0; the others are scaled by 1 / (1 - rate).
      keys: PRNG keys [B], or None to drop nothing.
      layer: number that keeps the masks of different layers apart.
      axis: where the images are.

    Returns:
      float32, the shape of `x`.
    """
    if keys is None or rate == 0:
        return x
    shape = x.shape[:axis] + x.shape[axis + 1 :]

    def keep_one(key):
        return jax.random.bernoulli(jax.random.fold_in(key, layer), 1 - rate, shape)

    keep = jax.vmap(keep_one, out_axes=axis)(keys)
    return jnp.where(keep, x / (1 - rate), 0.0)


def _flatten(images: Array) -> Array:
    return images.reshape(images.shape[0], -1)


def _as_sequence(images: Array, sequence: str) -> Array:
    """[B, 28, 28, 1] -> time-major [28, B, 28] or [784, B, 1]."""
    pixels = images[..., 0]
    if sequence == "rows":
        return pixels.transpose(1, 0, 2)
    if sequence == "columns":
        return pixels.transpose(2, 0, 1)
    return pixels.reshape(pixels.shape[0], -1).T[..., None]


def _lecun_rows(key, shape, dtype=jnp.float32):
    return nn.initializers.lecun_normal()(key, shape[::-1], dtype).T


def _per_gate(init, num_gates: int):
    """Draws each gate's block of a fused kernel [F, gates * units] by itself."""

    def init_fused(key, shape, dtype=jnp.float32):
        block = (shape[0], shape[1] // num_gates)
        keys = jax.random.split(key, num_gates)
        return jnp.concatenate([init(k, block, dtype) for k in keys], axis=-1)

    return init_fused


def _forget_one(key, shape, dtype=jnp.float32):
    del key
    i, f, g, o = jnp.split(jnp.zeros(shape, dtype), 4)
    return jnp.concatenate([i, f + 1, g, o])
