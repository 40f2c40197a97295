"""Recurrent models."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mnist_jax.models.layers import Dense, drop, dropout
from mnist_jax.models.registry import register
from mnist_jax.ops import recurrent
from mnist_jax.settings import setting

Array = jax.Array

MOST_UNITS = 16_384
SEQUENCES = ("rows", "columns", "pixels", "permuted")


def units(default: int) -> Any:
    """The setting of models with hidden states."""
    return setting(default, "size of each hidden state", low=1, high=MOST_UNITS)


def layers(default: int) -> Any:
    """The setting of models whose recurrences read those below."""
    return setting(default, "recurrences on top of each other", low=1, high=100)


def sequence() -> Any:
    """The setting of models that read an image step by step."""
    return setting("rows", "what a time step reads", choices=SEQUENCES)


def bidirectional() -> Any:
    """The setting of models that may read a sequence from both of its ends."""
    return setting(False, "also read the sequence from its end")


def remat_steps() -> Any:
    """The setting of models whose backward pass may compute steps again."""
    return setting(
        0,
        "gradient checkpointing: time steps that are read at a time and recomputed in "
        "the backward pass; 0 for all at once, with nothing recomputed",
        low=0,
        high=1_000_000,
        is_identity=False,
    )


class RecurrentLayer(nn.Module):
    """One recurrence over time: [T, B, F] -> [T, B, units] or the last [B, units].

    Attributes:
      cell: 'rnn', 'lstm' or 'gru'; the equations are in `ops/recurrent.py`.
      units: size of the hidden state.
      last_only: whether to return only the state after the last step.
      reverse: whether to read the sequence from its end.
      dtype: of the matmuls' operands.
      remat_steps: see `ops/recurrent.py`.
    """

    cell: str
    units: int
    last_only: bool
    reverse: bool = False
    dtype: jnp.dtype = jnp.float32
    remat_steps: int = 0

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
        hidden = getattr(recurrent, self.cell)(
            sequence,
            weights,
            last_only=self.last_only,
            dtype=self.dtype,
            remat_steps=self.remat_steps,
        )
        # Backwards states are returned in the order of the sequence.
        return hidden[::-1] if self.reverse and not self.last_only else hidden


class Recurrent(nn.Module):
    """An image read as a sequence; the last state goes to the logits.

    Attributes:
      cell: 'rnn', 'lstm' or 'gru'.
      dtype: of the matmuls' operands.
      units: size of each hidden state.
      layers: recurrences on top of each other.
      bidirectional: whether each layer also reads the sequence from its end.
      dropout: share of each layer's output that is dropped in training.
      sequence: 'rows' (of 28 x 28 images: 28 steps of 28 pixels), 'columns' (likewise),
        'pixels' (784 steps of one) or 'permuted' (the pixels in `permutation`).
      remat_steps: time steps between saved states, see `ops/recurrent.py`.
    """

    num_classes: int
    cell: str
    dtype: jnp.dtype = jnp.float32
    units: int = units(128)
    layers: int = layers(1)
    bidirectional: bool = bidirectional()
    dropout: float = dropout(0.0)
    sequence: str = sequence()
    remat_steps: int = remat_steps()

    @nn.compact
    def __call__(
        self, images: Array, keys: Array | None = None, every_step: bool = False
    ) -> Array:
        """Logits [B, K]; with `every_step` [T, B, K], after each of the last layer's.

        A backward direction has then read as many steps, from the sequence's end.
        """
        x = as_sequence(images, self.sequence)
        directions = (False, True) if self.bidirectional else (False,)
        for i in range(self.layers):
            is_last = i == self.layers - 1
            last_only = is_last and not every_step
            outputs = [
                RecurrentLayer(
                    self.cell,
                    self.units,
                    last_only,
                    reverse,
                    self.dtype,
                    self.remat_steps,
                )(x)
                for reverse in directions
            ]
            if is_last and every_step:
                outputs[1:] = [x[::-1] for x in outputs[1:]]
            x = jnp.concatenate(outputs, axis=-1) if self.bidirectional else outputs[0]
            x = drop(x, self.dropout, keys, i, axis=x.ndim - 2)
        return Dense(self.num_classes, self.dtype)(x)


@register("rnn")
class RNN(Recurrent):
    cell: str = "rnn"


@register("lstm")
class LSTM(Recurrent):
    cell: str = "lstm"


@register("gru")
class GRU(Recurrent):
    cell: str = "gru"


def as_sequence(images: Array, sequence: str) -> Array:
    """[B, H, W, 1] -> time-major [H, B, W], [W, B, H] or [HW, B, 1]."""
    pixels = images[..., 0]
    if sequence == "rows":
        return pixels.transpose(1, 0, 2)
    if sequence == "columns":
        return pixels.transpose(2, 0, 1)
    steps = pixels.reshape(len(pixels), -1).T[..., None]
    return steps[permutation(len(steps))] if sequence == "permuted" else steps


def permutation(num_pixels: int) -> np.ndarray:
    """The order of 'permuted', int [num_pixels], the same for every run.

    That of Le et al., "A Simple Way to Initialize Recurrent Networks of Rectified
    Linear Units" (2015), is not published; like theirs and those of others this one is
    drawn once, with seed 0 of a generator that NumPy keeps as it is.
    """
    return np.random.RandomState(0).permutation(num_pixels)


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
