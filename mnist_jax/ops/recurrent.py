"""Recurrences over time, with their own gradients.

Three things make them fast. The inputs of all time steps are projected before the
scan, which is left with one product of the state per gate. The backward scan emits
only the gradients at the gates, and the gradients of the kernels are a few large
products after it, where automatic differentiation would add up small ones per step
(Appleyard et al., "Optimizing Performance of Recurrent Neural Networks on GPUs",
2016, describes both for cuDNN). And on CPU each gate is an array of its own: no slice
and no concatenation inside the scan, which XLA would do element by element.

Shapes: T time steps, B images, F features, H units, k gates. Everything is float32
and time-major. The first state is zero. Kernels and biases of the gates lie side by
side in the order in which the equations name the gates.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mnist_jax.ops.platform import on_cpu

Array = jax.Array


class Weights(NamedTuple):
    """What a recurrence learns."""

    input_kernel: Array  # W, float32 [F, kH]
    recurrent_kernel: Array  # U, float32 [H, kH]
    bias: Array  # b, float32 [kH]
    hidden_bias: Array | None = None  # c, float32 [H]


class Cell(NamedTuple):
    """One time step and its gradient, on lists with one array [B, H] per gate.

    The carry is a tuple whose first entry is the hidden state h.
    """

    num_states: int
    # Which of the emitted gradients belong to x W, and which to h U.
    at_input: tuple[int, ...]
    at_hidden: tuple[int, ...]
    # (carry, x W + b, h U, hidden_bias) -> (carry, residuals)
    forward: Callable
    # (carry gradient, residuals) -> (previous carry's gradient but for the part that
    # comes through h U, emitted gradients)
    backward: Callable


def rnn(inputs: Array, weights: Weights, *, last_only: bool) -> Array:
    """Simple recurrent network (Elman, 1990): h' = tanh(x W + h U + b).

    Args:
      inputs: x, float32 [T, B, F].
      weights: k = 1.
      last_only: whether to return only the last hidden state.

    Returns:
      float32 [B, H] if `last_only`, else [T, B, H].
    """
    return _recurrence(_RNN, last_only, inputs, weights)


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
    return _recurrence(_LSTM, last_only, inputs, weights)


def gru(inputs: Array, weights: Weights, *, last_only: bool) -> Array:
    """Gated recurrent unit (Cho et al., 2014), reset gate after the product.

    r, z = sigmoid(x W + h U + b), n = tanh(x W + b + r (h U + c)), each with its own
    part of the weights, in the order r, z, n; h' = (1 - z) n + z h.

    Args:
      inputs: x, float32 [T, B, F].
      weights: k = 3, with hidden_bias.
      last_only: whether to return only the last hidden state.

    Returns:
      float32 [B, H] if `last_only`, else [T, B, H].
    """
    return _recurrence(_GRU, last_only, inputs, weights)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _recurrence(cell: Cell, last_only: bool, inputs: Array, weights: Weights) -> Array:
    return _forward(cell, last_only, inputs, weights)[0]


def _forward(cell, last_only, inputs, weights):
    num_units = len(weights.recurrent_kernel)
    kernels = _split(weights.recurrent_kernel, num_units)
    biases = _split(weights.bias, num_units)
    projected = _products(inputs, _split(weights.input_kernel, num_units))

    def step(carry, projected):
        # Added here, inside the gates' loop over elements, the biases cost nothing.
        projected = [x + b for x, b in zip(projected, biases, strict=True)]
        hidden = _products(carry[0], kernels)
        new, residuals = cell.forward(carry, projected, hidden, weights.hidden_bias)
        return new, (carry[0], residuals, None if last_only else new[0])

    zeros = jnp.zeros((inputs.shape[1], num_units), inputs.dtype)
    carry, (before, residuals, after) = jax.lax.scan(
        step, (zeros,) * cell.num_states, projected
    )
    output = carry[0] if last_only else after
    return output, (inputs, weights, before, residuals)


def _backward(cell, last_only, saved, grads):
    inputs, weights, before, residuals = saved
    num_units = before.shape[-1]
    kernels = _split(weights.recurrent_kernel, num_units)

    def step(carry, xs):
        carry, gradients = carry
        residuals, dh, t = xs
        if dh is not None:
            carry = (carry[0] + dh, *carry[1:])
        (dh, *others), emitted = cell.backward(carry, residuals)
        # Computed once: XLA would work it out again for each product and each store.
        emitted = jax.lax.optimization_barrier(emitted)
        dh += _sum_transposed([emitted[i] for i in cell.at_hidden], kernels)
        return ((dh, *others), _write(gradients, t, emitted)), None

    num_steps, batch_size, _ = inputs.shape
    num_emitted = max(cell.at_hidden) + 1
    zeros = jnp.zeros(grads.shape[-2:], grads.dtype)
    carry = (grads if last_only else zeros,) + (zeros,) * (cell.num_states - 1)
    gradients = jnp.zeros((num_steps, batch_size, num_emitted * num_units), grads.dtype)
    xs = (residuals, None if last_only else grads, jnp.arange(num_steps))
    (_, gradients), _ = jax.lax.scan(step, (carry, gradients), xs, reverse=True)

    # One product for all: what is always 1 has the biases as its kernel.
    ones = jnp.ones((num_steps, batch_size, 1), inputs.dtype)
    rows = jnp.concatenate([before, inputs, ones], axis=-1)
    rows = rows.reshape(num_steps * batch_size, -1)
    sums = rows.T @ gradients.reshape(len(rows), -1)
    of_hidden, of_input, of_one = jnp.split(sums, [num_units, len(sums) - 1])

    def pick(gates, array):
        blocks = _split(array, num_units)
        return jnp.concatenate([blocks[i] for i in gates], axis=-1)

    weight_grads = Weights(
        input_kernel=pick(cell.at_input, of_input),
        recurrent_kernel=pick(cell.at_hidden, of_hidden),
        bias=pick(cell.at_input, of_one[0]),
        hidden_bias=None
        if weights.hidden_bias is None
        else pick(cell.at_hidden[-1:], of_one[0]),
    )
    at_input = [_split(gradients, num_units)[i] for i in cell.at_input]
    input_kernels = _split(weights.input_kernel, num_units)
    return _sum_transposed(at_input, input_kernels), weight_grads


_recurrence.defvjp(_forward, _backward)


def _split(weight: Array, num_units: int) -> list[Array]:
    """[..., kH] -> k arrays [..., H]."""
    return jnp.split(weight, weight.shape[-1] // num_units, axis=-1)


def _products(x: Array, kernels: Sequence[Array]) -> list[Array]:
    """[x K for each K], by one product for all where that is better."""
    if on_cpu():
        return [x @ kernel for kernel in kernels]
    return jnp.split(x @ jnp.concatenate(kernels, axis=-1), len(kernels), axis=-1)


def _sum_transposed(grads: Sequence[Array], kernels: Sequence[Array]) -> Array:
    """Sum of g K^T over the gates: the gradient at x of `_products`."""
    if on_cpu():
        return sum(g @ kernel.T for g, kernel in zip(grads, kernels, strict=True))
    return jnp.concatenate(grads, axis=-1) @ jnp.concatenate(kernels, axis=-1).T


def _write(stack: Array, t: Array, arrays: Sequence[Array]) -> Array:
    """Puts arrays [B, H] side by side into row `t` of a stack [T, B, ..]."""
    if not on_cpu():
        arrays = [jnp.concatenate(arrays, axis=-1)]
    start = 0
    for array in arrays:
        place = (t, 0, start)
        stack = jax.lax.dynamic_update_slice(stack, array[None], place)
        start += array.shape[-1]
    return stack


def _sigmoid(x: Array) -> Array:
    """By the hyperbolic tangent, which XLA has faster on CPU than the exponential."""
    return 0.5 * jnp.tanh(0.5 * x) + 0.5


def _rnn_forward(carry, projected, hidden, _):
    h = jnp.tanh(projected[0] + hidden[0])
    return (h,), h


def _rnn_backward(carry, h):
    return (0.0,), (carry[0] * (1 - h * h),)


def _lstm_forward(carry, projected, hidden, _):
    c = carry[1]
    i, f, g, o = [x + y for x, y in zip(projected, hidden, strict=True)]
    i, f, g, o = _sigmoid(i), _sigmoid(f), jnp.tanh(g), _sigmoid(o)
    new_c = f * c + i * g
    tanh_c = jnp.tanh(new_c)
    return (o * tanh_c, new_c), (c, i, f, g, o, tanh_c)


def _lstm_backward(carry, residuals):
    dh, dc = carry
    c, i, f, g, o, tanh_c = residuals
    dc = dc + dh * o * (1 - tanh_c * tanh_c)
    emitted = (
        dc * g * i * (1 - i),
        dc * c * f * (1 - f),
        dc * i * (1 - g * g),
        dh * tanh_c * o * (1 - o),
    )
    return (0.0, dc * f), emitted


def _gru_forward(carry, projected, hidden, hidden_bias):
    (h,) = carry
    r = _sigmoid(projected[0] + hidden[0])
    z = _sigmoid(projected[1] + hidden[1])
    candidate = hidden[2] + hidden_bias
    n = jnp.tanh(projected[2] + r * candidate)
    return ((1 - z) * n + z * h,), (h, r, z, n, candidate)


def _gru_backward(carry, residuals):
    (dh,) = carry
    h, r, z, n, candidate = residuals
    dn = dh * (1 - z) * (1 - n * n)
    dz = dh * (h - n) * z * (1 - z)
    dr = dn * candidate * r * (1 - r)
    return (dh * z,), (dr, dz, dn, dn * r)


_RNN = Cell(1, (0,), (0,), _rnn_forward, _rnn_backward)
_LSTM = Cell(2, (0, 1, 2, 3), (0, 1, 2, 3), _lstm_forward, _lstm_backward)
_GRU = Cell(1, (0, 1, 2), (0, 1, 3), _gru_forward, _gru_backward)
