"""Recurrences whose steps are linear in the state, as layers.

Each maps (carry, inputs [H, T, B]), features first and images last, to the carry after
T time steps and the outputs, [H, T, B]. A carry is the state of one step, `num_states`
arrays [H, 1, B]. How long a state is kept does not depend on it, so that all steps can
be joined in parallel, see `ops/linear_recurrence.py`.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from mnist_jax.models.layers import lecun_rows
from mnist_jax.ops.dense import dense_first
from mnist_jax.ops.linear_recurrence import Number, linear_recurrence

Array = jax.Array

MAX_DECAY = 0.999  # largest absolute value of the LRU's first decays


class DenseFirst(nn.Module):
    """W x + b over the first axis, [inputs, T, B] -> [units, T, B]."""

    units: int
    dtype: jnp.dtype = jnp.float32  # of the matmul's operands
    bias_init: Callable[..., Array] = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", lecun_rows, (self.units, len(x)))
        bias = self.param("bias", self.bias_init, (self.units,))
        return dense_first(x, kernel, self.dtype) + bias[:, None, None]


class LRU(nn.Module):
    """Linear recurrent unit (Orvieto et al., "Resurrecting Recurrent Neural Networks
    for Long Sequences", 2023), with as many complex states as features.

    h_t = a h_{t-1} + g (B x_t), y_t = Re(C h_t) + d x_t, where a = exp(-exp(nu) +
    i exp(theta)) starts uniformly on a ring, and g such that the states of white noise
    start with a variance of one. Unlike in the paper phases are in the upper half
    plane, as the real part is the same in the lower, and C starts such that outputs
    have the variance of the inputs.

    Attributes:
      min_decay: where the ring begins, in [0, MAX_DECAY), where it ends.
      reverse: whether the sequence is read from its end.
      dtype: of the matmuls' operands.
    """

    min_decay: float = 0.5
    reverse: bool = False
    dtype: jnp.dtype = jnp.float32
    num_states = 2  # real and imaginary

    @nn.compact
    def __call__(self, carry: Number, x: Array) -> tuple[Number, Array]:
        units = len(x)
        log_rates = _log_rates(self.min_decay)
        radius = jnp.exp(-jnp.exp(self.param("nu", log_rates, (units,))))
        angle = jnp.exp(self.param("theta", _log_angles, (units,)))
        log_gain = self.param("log_gain", lambda _: 0.5 * jnp.log1p(-(radius**2)))
        # Of B, C and the states the real parts come first, and then the imaginary ones.
        to_states = self.param("to_states", _of_half_variance, (2 * units, units))
        from_states = self.param("from_states", lecun_rows, (units, 2 * units))
        skip = self.param("skip", nn.initializers.normal(1.0), (units,))

        gains = jnp.tile(jnp.exp(log_gain), 2)[:, None]
        inputs = tuple(jnp.split(dense_first(x, gains * to_states, self.dtype), 2))
        decay = (radius * jnp.cos(angle), radius * jnp.sin(angle))
        states = linear_recurrence(decay, inputs, carry, self.reverse)
        outputs = dense_first(jnp.concatenate(states), from_states, self.dtype)
        return _last(states, self.reverse), outputs + skip[:, None, None] * x


class MinGRU(nn.Module):
    """minGRU (Feng et al., "Were RNNs All We Needed?", 2024).

    h_t = k_t h_{t-1} + (1 - k_t) n_t with k = sigmoid(W x + b) and n = V x + c.

    Attributes:
      num_steps: of the whole sequence of inputs, which may be read a part at a time.
    """

    num_steps: int
    reverse: bool = False
    dtype: jnp.dtype = jnp.float32
    num_states = 1

    @nn.compact
    def __call__(self, carry: Number, x: Array) -> tuple[Number, Array]:
        bias = _long_memory(self.num_steps, (1, 0))
        sums = DenseFirst(2 * len(x), self.dtype, bias)(x)
        keep, new = jnp.split(sums, 2)
        return _gated(nn.sigmoid(keep), new, carry, self.reverse)


class MinLSTM(nn.Module):
    """minLSTM (Feng et al., 2024).

    h_t = k_t h_{t-1} + (1 - k_t) n_t with k = f / (f + i); f and i are
    sigmoid(W x + b), each with its own weights, and n = V x + c.

    Attributes:
      num_steps: of the whole sequence of inputs, which may be read a part at a time.
    """

    num_steps: int
    reverse: bool = False
    dtype: jnp.dtype = jnp.float32
    num_states = 1

    @nn.compact
    def __call__(self, carry: Number, x: Array) -> tuple[Number, Array]:
        bias = _long_memory(self.num_steps, (1, -1, 0))
        sums = DenseFirst(3 * len(x), self.dtype, bias)(x)
        forget, enter, new = jnp.split(sums, 3)
        forget, enter = nn.sigmoid(forget), nn.sigmoid(enter)
        return _gated(forget / (forget + enter), new, carry, self.reverse)


def _gated(
    keep: Array, new: Array, carry: Number, reverse: bool
) -> tuple[Number, Array]:
    states = linear_recurrence((keep,), ((1 - keep) * new,), carry, reverse)
    return _last(states, reverse), states[0]


def _last(states: Number, reverse: bool) -> Number:
    """After the last step that was read."""
    return tuple(x[:, :1] if reverse else x[:, -1:] for x in states)


def _long_memory(num_steps: int, signs: tuple[int, ...]) -> Callable[..., Array]:
    """Biases of gates side by side with which states are kept for 2 to T steps.

    Those of Tallec and Ollivier, "Can recurrent neural networks warp time?" (2018),
    times the sign of each gate.
    """

    def init(key, shape, dtype=jnp.float32):
        steps = jax.random.uniform(
            key, (shape[0] // len(signs),), dtype, 1, max(num_steps - 1, 2)
        )
        return jnp.concatenate([sign * jnp.log(steps) for sign in signs])

    return init


def _log_rates(min_decay: float) -> Callable[..., Array]:
    """log(-log |a|) of a uniform on the ring."""

    def init(key, shape, dtype=jnp.float32):
        squared = jax.random.uniform(key, shape, dtype, min_decay**2, MAX_DECAY**2)
        return jnp.log(-0.5 * jnp.log(squared))

    return init


def _log_angles(key, shape, dtype=jnp.float32):
    return jnp.log(jax.random.uniform(key, shape, dtype, 1e-3, jnp.pi))


def _of_half_variance(key, shape, dtype=jnp.float32):
    return lecun_rows(key, shape, dtype) / jnp.sqrt(2)
