"""Recurrences over time, with their own gradients.

Three functions, one for each cell of `cells.py`. `time_scan.py` runs them on CPU,
`plain_time_scan.py` elsewhere; `jax.lax.platform_dependent` decides at lowering.
"""

import functools

import jax
import jax.numpy as jnp

from mnist_jax.ops import plain_time_scan, time_scan
from mnist_jax.ops.cells import GRU, LSTM, RNN, Cell, Weights

__all__ = ["Weights", "gru", "lstm", "rnn"]

Array = jax.Array


def rnn(
    inputs: Array, weights: Weights, *, last_only: bool, dtype: jnp.dtype = jnp.float32
) -> Array:
    """Simple recurrent network (Elman, 1990): h' = tanh(x W + h U + b).

    Args:
      inputs: x, float32 [T, B, F].
      weights: k = 1.
      last_only: whether to return only the last hidden state.
      dtype: of the matmuls' operands, see `precision.py`.

    Returns:
      float32 [B, H] if `last_only`, else [T, B, H].
    """
    return _recurrence(RNN, last_only, dtype, inputs, weights)


def lstm(
    inputs: Array, weights: Weights, *, last_only: bool, dtype: jnp.dtype = jnp.float32
) -> Array:
    """Long short-term memory (Hochreiter and Schmidhuber, 1997; Gers et al., 2000).

    i, f, o = sigmoid(x W + h U + b), g = tanh(x W + h U + b), each with its own part
    of the weights, in the order i, f, g, o; c' = f c + i g; h' = o tanh(c').

    Args:
      inputs: x, float32 [T, B, F].
      weights: k = 4.
      last_only: whether to return only the last hidden state.
      dtype: of the matmuls' operands, see `precision.py`.

    Returns:
      float32 [B, H] if `last_only`, else [T, B, H].
    """
    return _recurrence(LSTM, last_only, dtype, inputs, weights)


def gru(
    inputs: Array, weights: Weights, *, last_only: bool, dtype: jnp.dtype = jnp.float32
) -> Array:
    """Gated recurrent unit (Cho et al., 2014), reset gate after the matmul.

    r, z = sigmoid(x W + h U + b), n = tanh(x W + b + r (h U + c)), each with its own
    part of the weights, in the order r, z, n; h' = (1 - z) n + z h.

    Args:
      inputs: x, float32 [T, B, F].
      weights: k = 3, with hidden_bias.
      last_only: whether to return only the last hidden state.
      dtype: of the matmuls' operands, see `precision.py`.

    Returns:
      float32 [B, H] if `last_only`, else [T, B, H].
    """
    return _recurrence(GRU, last_only, dtype, inputs, weights)


def _recurrence(
    cell: Cell, last_only: bool, dtype: jnp.dtype, inputs: Array, weights: Weights
) -> Array:
    on_cpu, elsewhere = (
        functools.partial(scan.recurrence, cell, last_only, dtype)
        for scan in (time_scan, plain_time_scan)
    )
    return jax.lax.platform_dependent(inputs, weights, cpu=on_cpu, default=elsewhere)
