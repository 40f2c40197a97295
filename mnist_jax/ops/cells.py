"""The cells of the recurrences: one time step and its gradient.

Arrays are [H, B], H units of B images. A cell takes the sums at its gates, [k, H, B],
the GRU also one by one: x W + h U + b, but of a last gate with `own_input` the two
parts, h U + c and then x W + b. Its forward step also computes the factors by which the
gradient will reach each of the sums, so that its backward step only multiplies.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array
Carry = tuple[Array, ...]  # the hidden state h, and what else a cell hands on


class Weights(NamedTuple):
    """What a recurrence learns."""

    input_kernel: Array  # W, float32 [F, kH]
    recurrent_kernel: Array  # U, float32 [H, kH]
    bias: Array  # b, float32 [kH]
    hidden_bias: Array | None = None  # c, float32 [H]

    @property
    def num_gates(self) -> int:
        """k."""
        return self.bias.size // len(self.recurrent_kernel)


class Cell(NamedTuple):
    """One time step and its gradient, on arrays [H, B] and sums at gates.

    The carry is a tuple whose first entry is the hidden state h.
    """

    num_states: int
    own_input: bool  # whether the last gate's two parts come apart
    # (carry, sums) -> (carry, factors at each of the sums, arrays kept for `backward`)
    forward: Callable
    # (carry gradient, kept) -> (what to multiply the factors by for the gradients, the
    # previous carry's gradient but for the part that comes through h U)
    backward: Callable


def _sigmoid(x: Array) -> Array:
    """By the hyperbolic tangent, which XLA has faster on CPU than the exponential."""
    return 0.5 * jnp.tanh(0.5 * x) + 0.5


def _rnn_forward(carry, sums):
    h = jnp.tanh(sums[0])
    return (h,), (1 - h * h,), ()


def _rnn_backward(carry, kept):
    return carry[0], (0.0,)


def _lstm_forward(carry, sums):
    c = carry[1]
    # All gates at once: tanh(x) of g, and of the others sigmoid by tanh(x / 2).
    scale = jnp.array([0.5, 0.5, 1, 0.5], c.dtype)[:, None, None]
    i, f, g, o = scale * jnp.tanh(scale * sums) + (1 - scale)
    new_c = f * c + i * g
    tanh_c = jnp.tanh(new_c)
    at_gates = (
        g * i * (1 - i),
        c * f * (1 - f),
        i * (1 - g * g),
        tanh_c * o * (1 - o),
    )
    return (o * tanh_c, new_c), at_gates, (o * (1 - tanh_c * tanh_c), f)


def _lstm_backward(carry, kept):
    dh, dc = carry
    at_c, f = kept
    dc = dc + dh * at_c
    is_o = jnp.arange(4)[:, None, None] == 3
    return jnp.where(is_o, dh, dc), (0.0, dc * f)


def _gru_forward(carry, sums):
    (h,) = carry
    r, z, candidate, own = sums
    r, z = _sigmoid(r), _sigmoid(z)
    n = jnp.tanh(own + r * candidate)
    at_n = (1 - z) * (1 - n * n)
    at_gates = (at_n * candidate * r * (1 - r), (h - n) * z * (1 - z), at_n * r, at_n)
    return ((1 - z) * n + z * h,), at_gates, (z,)


def _gru_backward(carry, kept):
    return carry[0], (carry[0] * kept[0],)


RNN = Cell(1, False, _rnn_forward, _rnn_backward)
LSTM = Cell(2, False, _lstm_forward, _lstm_backward)
GRU = Cell(1, True, _gru_forward, _gru_backward)


def joint_kernel(cell: Cell, weights: Weights) -> Array:
    """[H + F + 1, n H], which multiplies h, x and 1 to the n sums of a cell."""
    rows = [weights.recurrent_kernel, weights.input_kernel, weights.bias[None]]
    if not cell.own_input:
        return jnp.concatenate(rows)
    # The last gate's two parts side by side.
    hidden, inputs, bias = rows
    split = hidden.shape[1] - len(hidden)
    zeros = jnp.zeros_like(inputs[:, split:])
    return jnp.concatenate(
        [
            jnp.pad(hidden, ((0, 0), (0, len(hidden)))),
            jnp.concatenate([inputs[:, :split], zeros, inputs[:, split:]], 1),
            jnp.concatenate(
                [bias[:, :split], weights.hidden_bias[None], bias[:, split:]], 1
            ),
        ]
    )
