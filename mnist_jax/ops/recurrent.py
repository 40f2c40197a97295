"""Recurrences over time, with their own gradients.

All three take inputs that are already projected, for all time steps in one matrix
product, so that the scan does one fused `[B, H] @ [H, kH]` product per step. Their
backward scan emits only the gradients at the gates; the gradient of the recurrent
kernel is one large product after it, where automatic differentiation would add up
one small product per step. (Appleyard et al., "Optimizing Performance of Recurrent
Neural Networks on GPUs", 2016, describes both for cuDNN.)

Shapes: T time steps, B images, H units. Everything is float32 and time-major. The
first state is zero.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array


class Cell(NamedTuple):
    """One time step and its gradient.

    The carry is a tuple whose first entry is the hidden state h [B, H].
    """

    num_states: int
    # (carry, projected [B, kH], weights) -> (carry, residuals)
    forward: Callable
    # (carry gradient, residuals, weights) -> (previous carry's gradient, emitted)
    backward: Callable
    # (residuals, emitted), stacked over time -> gradients (projected, weights)
    gradients: Callable


def rnn(projected: Array, recurrent_kernel: Array, *, last_only: bool) -> Array:
    """Simple recurrent network (Elman, 1990): h' = tanh(projected + h U).

    Args:
      projected: float32 [T, B, H], inputs times input kernel plus bias.
      recurrent_kernel: U, float32 [H, H].
      last_only: whether to return only the last hidden state.

    Returns:
      float32 [B, H] if `last_only`, else [T, B, H].
    """
    return _recurrence(_RNN, last_only, projected, (recurrent_kernel,))


def lstm(projected: Array, recurrent_kernel: Array, *, last_only: bool) -> Array:
    """Long short-term memory (Hochreiter and Schmidhuber, 1997; Gers et al., 2000).

    i, f, o = sigmoid(projected + h U), g = tanh(projected + h U), each its own
    quarter, in the order i, f, g, o; c' = f c + i g; h' = o tanh(c').

    Args:
      projected: float32 [T, B, 4H], inputs times input kernel plus bias.
      recurrent_kernel: U, float32 [H, 4H].
      last_only: whether to return only the last hidden state.

    Returns:
      float32 [B, H] if `last_only`, else [T, B, H].
    """
    return _recurrence(_LSTM, last_only, projected, (recurrent_kernel,))


def gru(
    projected: Array, recurrent_kernel: Array, hidden_bias: Array, *, last_only: bool
) -> Array:
    """Gated recurrent unit (Cho et al., 2014), reset gate after the product.

    r, z = sigmoid(projected + h U), n = tanh(projected + r (h U + b)), each its own
    third, in the order r, z, n; h' = (1 - z) n + z h.

    Args:
      projected: float32 [T, B, 3H], inputs times input kernel plus bias.
      recurrent_kernel: U, float32 [H, 3H].
      hidden_bias: b, float32 [H].
      last_only: whether to return only the last hidden state.

    Returns:
      float32 [B, H] if `last_only`, else [T, B, H].
    """
    weights = (recurrent_kernel, hidden_bias)
    return _recurrence(_GRU, last_only, projected, weights)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _recurrence(cell: Cell, last_only: bool, projected: Array, weights: Any) -> Array:
    def step(carry, x):
        carry, _ = cell.forward(carry, x, weights)
        return carry, None if last_only else carry[0]

    carry, hidden = jax.lax.scan(step, _zeros(cell, projected, weights), projected)
    return carry[0] if last_only else hidden


def _recurrence_forward(cell, last_only, projected, weights):
    def step(carry, x):
        carry, residuals = cell.forward(carry, x, weights)
        return carry, (residuals, None if last_only else carry[0])

    carry, (residuals, hidden) = jax.lax.scan(
        step, _zeros(cell, projected, weights), projected
    )
    return (carry[0] if last_only else hidden), (residuals, weights)


def _recurrence_backward(cell, last_only, saved, grads):
    residuals, weights = saved
    zeros = jnp.zeros(grads.shape[-2:])
    carry = (grads if last_only else zeros,) + (zeros,) * (cell.num_states - 1)

    def step(carry, xs):
        residuals, dh = xs
        if dh is not None:
            carry = (carry[0] + dh, *carry[1:])
        return cell.backward(carry, residuals, weights)

    xs = (residuals, None if last_only else grads)
    _, emitted = jax.lax.scan(step, carry, xs, reverse=True)
    return cell.gradients(residuals, emitted)


_recurrence.defvjp(_recurrence_forward, _recurrence_backward)


def _zeros(cell: Cell, projected: Array, weights: Any) -> tuple[Array, ...]:
    state = jnp.zeros((projected.shape[1], weights[0].shape[0]))
    return (state,) * cell.num_states


def _sum_outer(a: Array, b: Array) -> Array:
    """Sum over time and batch of a^T b: [T, B, M], [T, B, N] -> [M, N]."""
    return a.reshape(-1, a.shape[-1]).T @ b.reshape(-1, b.shape[-1])


def _rnn_forward(carry, projected, weights):
    (h,) = carry
    new_h = jnp.tanh(projected + h @ weights[0])
    return (new_h,), (h, new_h)


def _rnn_backward(carry, residuals, weights):
    (dh,) = carry
    _, new_h = residuals
    dz = dh * (1 - new_h * new_h)
    return (dz @ weights[0].T,), dz


def _rnn_gradients(residuals, dz):
    h, _ = residuals
    return dz, (_sum_outer(h, dz),)


def _gates(z: Array, is_sigmoid: tuple[bool, ...]) -> Array:
    """Sigmoid or tanh per gate, by one tanh over all: s(z) = tanh(z / 2) / 2 + 1 / 2.

    One transcendental function over the whole array is faster than two over parts.
    """
    num_units = z.shape[-1] // len(is_sigmoid)
    half = [0.5 if sigmoid else 1.0 for sigmoid in is_sigmoid]
    shift = [0.5 if sigmoid else 0.0 for sigmoid in is_sigmoid]
    scale = jnp.repeat(jnp.array(half), num_units)
    return jnp.tanh(z * scale) * scale + jnp.repeat(jnp.array(shift), num_units)


def _lstm_forward(carry, projected, weights):
    h, c = carry
    gates = _gates(projected + h @ weights[0], (True, True, False, True))
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    new_c = f * c + i * g
    tanh_c = jnp.tanh(new_c)
    return (o * tanh_c, new_c), (h, c, gates, tanh_c)


def _lstm_backward(carry, residuals, weights):
    dh, dc = carry
    _, c, gates, tanh_c = residuals
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    dc = dc + dh * o * (1 - tanh_c * tanh_c)
    dz = jnp.concatenate(
        [
            dc * g * i * (1 - i),
            dc * c * f * (1 - f),
            dc * i * (1 - g * g),
            dh * tanh_c * o * (1 - o),
        ],
        axis=-1,
    )
    return (dz @ weights[0].T, dc * f), dz


def _lstm_gradients(residuals, dz):
    return dz, (_sum_outer(residuals[0], dz),)


def _gru_forward(carry, projected, weights):
    (h,) = carry
    kernel, bias = weights
    x_rz, x_n = _split_last(projected, kernel.shape[0])
    h_rz, h_n = _split_last(h @ kernel, kernel.shape[0])
    rz = _gates(x_rz + h_rz, (True, True))
    r, z = jnp.split(rz, 2, axis=-1)
    candidate = h_n + bias
    n = jnp.tanh(x_n + r * candidate)
    return ((1 - z) * n + z * h,), (h, rz, n, candidate)


def _gru_backward(carry, residuals, weights):
    (dh,) = carry
    h, rz, n, candidate = residuals
    r, z = jnp.split(rz, 2, axis=-1)
    dn = dh * (1 - z) * (1 - n * n)
    dz = dh * (h - n) * z * (1 - z)
    dr = dn * candidate * r * (1 - r)
    recurrent = jnp.concatenate([dr, dz, dn * r], axis=-1)
    return (dh * z + recurrent @ weights[0].T,), (recurrent, dn)


def _gru_gradients(residuals, emitted):
    recurrent, dn = emitted
    drz, dcandidate = _split_last(recurrent, dn.shape[-1])
    projected = jnp.concatenate([drz, dn], axis=-1)
    kernel = _sum_outer(residuals[0], recurrent)
    return projected, (kernel, dcandidate.sum((0, 1)))


def _split_last(x: Array, num_units: int) -> tuple[Array, Array]:
    return x[..., :-num_units], x[..., -num_units:]


_RNN = Cell(1, _rnn_forward, _rnn_backward, _rnn_gradients)
_LSTM = Cell(2, _lstm_forward, _lstm_backward, _lstm_gradients)
_GRU = Cell(1, _gru_forward, _gru_backward, _gru_gradients)
