"""The cells of the recurrences: one time step and its gradient.

Arrays are [H, B], H units of B images, and gates [k, H, B]. A cell's forward step also
computes the factors by which the gradient will reach each of its gates, so that its
backward step only multiplies.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array


class Cell(NamedTuple):
    """One time step and its gradient, on arrays [H, B] and gates [k, H, B].

    The carry is a tuple whose first entry is the hidden state h. The gradient at a
    gate's x W + b is that at its h U, but where `own_input` says that the last gate
    takes in the two differently.
    """

    num_states: int
    own_input: bool
    # (carry, x W + b, h U, hidden_bias) -> (carry, factors at each gate's h U and then
    # at the last gate's own input, arrays kept for `backward`)
    forward: Callable
    # (carry gradient, kept) -> (what to multiply the factors by for the gradients, the
    # previous carry's gradient but for the part that comes through h U)
    backward: Callable


def _sigmoid(x: Array) -> Array:
    """By the hyperbolic tangent, which XLA has faster on CPU than the exponential."""
    return 0.5 * jnp.tanh(0.5 * x) + 0.5


def _rnn_forward(carry, projected, hidden, _):
    h = jnp.tanh(projected[0] + hidden[0])
    return (h,), (1 - h * h,), ()


def _rnn_backward(carry, kept):
    return carry[0], (0.0,)


def _lstm_forward(carry, projected, hidden, _):
    c = carry[1]
    # All gates at once: tanh(x) of g, and of the others sigmoid by tanh(x / 2).
    scale = jnp.array([0.5, 0.5, 1, 0.5], c.dtype)[:, None, None]
    i, f, g, o = scale * jnp.tanh(scale * (projected + hidden)) + (1 - scale)
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


def _gru_forward(carry, projected, hidden, hidden_bias):
    (h,) = carry
    r, z = _sigmoid(projected[:2] + hidden[:2])
    candidate = hidden[2] + hidden_bias
    n = jnp.tanh(projected[2] + r * candidate)
    at_n = (1 - z) * (1 - n * n)
    at_gates = (at_n * candidate * r * (1 - r), (h - n) * z * (1 - z), at_n * r, at_n)
    return ((1 - z) * n + z * h,), at_gates, (z,)


def _gru_backward(carry, kept):
    return carry[0], (carry[0] * kept[0],)


RNN = Cell(1, False, _rnn_forward, _rnn_backward)
LSTM = Cell(2, False, _lstm_forward, _lstm_backward)
GRU = Cell(1, True, _gru_forward, _gru_backward)
