"""Recurrences over time, with their own gradients.

Four things make them fast. The inputs of all time steps are projected before the
scan, which is left with one matmul of the state for all gates. The gradients of the
kernels are one large matmul after the backward scan, where automatic differentiation
would add up small ones per step (Appleyard et al., "Optimizing Performance of
Recurrent Neural Networks on GPUs", 2016, describes both for cuDNN). Inside, features
come first and images last, [H, B]: the gates of a matmul lie one after the other, so
that splitting them moves nothing. And one stack [n, H, T, B] lives through both
scans: it holds the projected inputs; the forward scan puts in their place the factors
by which gradients will reach them, so that the backward scan only multiplies.

Shapes: T time steps, B images, F features, H units, k gates. Everything is float32.
The first state is zero. Kernels and biases of the gates lie side by side in the order
in which the equations name the gates.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mnist_jax.ops.cells import GRU, LSTM, RNN, Cell

Array = jax.Array


class Weights(NamedTuple):
    """What a recurrence learns."""

    input_kernel: Array  # W, float32 [F, kH]
    recurrent_kernel: Array  # U, float32 [H, kH]
    bias: Array  # b, float32 [kH]
    hidden_bias: Array | None = None  # c, float32 [H]


def rnn(inputs: Array, weights: Weights, *, last_only: bool) -> Array:
    """Simple recurrent network (Elman, 1990): h' = tanh(x W + h U + b).

    Args:
      inputs: x, float32 [T, B, F].
      weights: k = 1.
      last_only: whether to return only the last hidden state.

    Returns:
      float32 [B, H] if `last_only`, else [T, B, H].
    """
    return _recurrence(RNN, last_only, inputs, weights)


def lstm(inputs: Array, weights: Weights, *, last_only: bool) -> Array:
    """Long short-term memory (Hochreiter and Schmidhuber, 1997; Gers et al., 2000).

    i, f, o = sigmoid(x W + h U + b), g = tanh(x W + h U + b), each with its own part
    of the weights, in the order i, f, g, o; c' = f c + i g; h' = o tanh(c').

    Args:
      inputs: x, float32 [T, B, F].
      weights: k = 4.
      last_only: whether to return only the last hidden state.

    Returns:
      float32 [B, H] if `last_only`, else [T, B, H].
    """
    return _recurrence(LSTM, last_only, inputs, weights)


def gru(inputs: Array, weights: Weights, *, last_only: bool) -> Array:
    """Gated recurrent unit (Cho et al., 2014), reset gate after the matmul.

    r, z = sigmoid(x W + h U + b), n = tanh(x W + b + r (h U + c)), each with its own
    part of the weights, in the order r, z, n; h' = (1 - z) n + z h.

    Args:
      inputs: x, float32 [T, B, F].
      weights: k = 3, with hidden_bias.
      last_only: whether to return only the last hidden state.

    Returns:
      float32 [B, H] if `last_only`, else [T, B, H].
    """
    return _recurrence(GRU, last_only, inputs, weights)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _recurrence(cell: Cell, last_only: bool, inputs: Array, weights: Weights) -> Array:
    return _forward(cell, last_only, inputs, weights, for_gradient=False)[0]


def _forward(cell, last_only, inputs, weights, for_gradient=True):
    num_steps, batch_size, _ = inputs.shape
    num_units = len(weights.recurrent_kernel)
    shape = (num_units, num_steps, batch_size)
    # What the kernels multiply: h, to be filled in, then x, and 1 for the biases.
    rows = [jnp.zeros(shape), inputs.transpose(2, 0, 1), jnp.ones((1, *shape[1:]))]
    rows = jnp.concatenate(rows).astype(inputs.dtype)
    kernel = jnp.concatenate([weights.input_kernel, weights.bias[None]]).T
    stack = kernel @ rows[num_units:].reshape(kernel.shape[1], -1)
    stack = stack.reshape(-1, *shape)
    own = jnp.zeros((1, *shape), inputs.dtype) if cell.own_input else None
    kernel = weights.recurrent_kernel.T
    hidden_bias = None if weights.hidden_bias is None else weights.hidden_bias[:, None]

    def step(loop, t):
        carry, rows, stack, own = loop
        rows = jax.lax.dynamic_update_slice(rows, carry[0][:, None], (0, t, 0))
        hidden = (kernel @ carry[0]).reshape(-1, num_units, batch_size)
        inputs = _read(stack, t)[:, :, 0]
        carry, factors, kept = cell.forward(carry, inputs, hidden, hidden_bias)
        output = None if last_only else carry[0]
        if not for_gradient:
            return (carry, rows, stack, own), (None, output)
        for i, factor in enumerate(factors[: len(stack)]):
            stack = _write(stack, t, factor[None, :, None], i)
        if cell.own_input:
            own = _write(own, t, factors[-1][None, :, None])
        return (carry, rows, stack, own), (kept, output)

    carry = (jnp.zeros((num_units, batch_size), inputs.dtype),) * cell.num_states
    loop = (carry, rows, stack, own)
    loop, (kept, outputs) = jax.lax.scan(step, loop, jnp.arange(num_steps))
    carry, rows, stack, own = loop
    output = carry[0].T if last_only else outputs.swapaxes(1, 2)
    return output, (rows, stack, own, kept, weights)


def _backward(cell, last_only, saved, grads):
    rows, stack, own, kept, weights = saved
    num_units, num_steps, batch_size = stack.shape[1:]

    def step(loop, xs):
        carry, stack, own = loop
        t, kept, dh = xs
        if dh is not None:
            carry = (carry[0] + dh.T, *carry[1:])
        multiplier, carry = cell.backward(carry, kept)
        # In the stack's own shape: XLA would copy it to change shapes on the way.
        multiplier = jnp.expand_dims(multiplier, -2)
        stack = _write(stack, t, _read(stack, t) * multiplier)
        if cell.own_input:
            own = _write(own, t, _read(own, t) * multiplier)
        gates = _read(stack, t).reshape(-1, batch_size)
        carry = (carry[0] + weights.recurrent_kernel @ gates, *carry[1:])
        return (carry, stack, own), None

    zeros = jnp.zeros((num_units, batch_size), stack.dtype)
    carry = (grads.T if last_only else zeros,) + (zeros,) * (cell.num_states - 1)
    xs = (jnp.arange(num_steps), kept, None if last_only else grads)
    (_, stack, own), _ = jax.lax.scan(step, (carry, stack, own), xs, reverse=True)

    def flat(array):  # [n, H, T, B] -> [n H, T B]
        return array.reshape(len(array) * array.shape[1], -1)

    rows = rows.reshape(len(rows), -1)
    sums = rows @ flat(stack).T
    of_hidden, of_input = sums[:num_units], sums[num_units:]
    hidden_bias = None
    gates = flat(stack)
    if cell.own_input:
        hidden_bias = of_input[-1, -num_units:]
        of_own = rows[num_units:] @ flat(own).T
        of_input = jnp.concatenate([of_input[:, :-num_units], of_own], axis=1)
        gates = jnp.concatenate([gates[:-num_units], flat(own)])
    at_inputs = (weights.input_kernel @ gates).reshape(-1, num_steps, batch_size)
    weight_grads = Weights(of_input[:-1], of_hidden, of_input[-1], hidden_bias)
    return at_inputs.transpose(1, 2, 0), weight_grads


_recurrence.defvjp(_forward, _backward)


def _read(stack: Array, t: Array) -> Array:
    """[n, H, B] of time step `t` from a stack [n, H, T, B]."""
    size = (*stack.shape[:2], 1, stack.shape[3])
    return jax.lax.dynamic_slice(stack, (0, 0, t, 0), size)


def _write(stack: Array, t: Array, blocks: Array, first: int = 0) -> Array:
    """Puts blocks [m, H, B] into time step `t` of a stack, from block `first` on."""
    place = (first, 0, t, 0)
    return jax.lax.dynamic_update_slice(stack, blocks, place)
