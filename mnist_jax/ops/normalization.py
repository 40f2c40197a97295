"""Batch normalisation (Ioffe and Szegedy, 2015), with its own gradient.

The gradient that XLA derives passes over the maps more often than is needed, and takes
half as long again on CPU.

Shapes: maps [H, W, C, B], whose B images lie in G groups of as many, one after another.
"""

import functools

import jax
import jax.numpy as jnp

Array = jax.Array

_EPSILON = 1e-5


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def batch_norm(
    x: Array, gain: Array, bias: Array, num_groups: int
) -> tuple[Array, Array, Array]:
    """Normalises by the mean and the variance of each channel in each group.

    Args:
      x: float32 [H, W, C, B].
      gain, bias: float32 [C].
      num_groups: G, divides B.

    Returns:
      float32 [H, W, C, B], and the means and variances, [C, G], which have no gradient.
    """
    return _forward(x, gain, bias, num_groups)[0]


def _forward(x, gain, bias, num_groups):
    mean = _means(x, num_groups)
    centred = x - _spread(mean, x)
    variance = _means(jnp.square(centred), num_groups)
    root = jax.lax.rsqrt(variance + _EPSILON)
    y = centred * _spread(gain[:, None] * root, x) + bias[:, None]
    return (y, mean, variance), (x, gain, mean, root)


def _backward(num_groups, residuals, grads):
    x, gain, mean, root = residuals
    grads, *_ = grads
    centred = x - _spread(mean, x)
    of_bias = _means(grads, num_groups)
    of_gain = _means(grads * centred, num_groups) * root
    scale = gain[:, None] * root
    x_grad = (
        _spread(scale, x) * grads
        - _spread(scale * of_bias, x)
        - _spread(scale * root * of_gain, x) * centred
    )
    size = x.size // (len(gain) * num_groups)
    return x_grad, size * of_gain.sum(1), size * of_bias.sum(1)


batch_norm.defvjp(_forward, _backward)


def scale_and_shift(
    x: Array, gain: Array, bias: Array, mean: Array, variance: Array
) -> Array:
    """Normalises by a mean and a variance that are known: float32 [C] each."""
    scale = gain * jax.lax.rsqrt(variance + _EPSILON)
    return x * scale[:, None] + (bias - mean * scale)[:, None]


def _means(x: Array, num_groups: int) -> Array:
    """Over rows, columns and the images of a group: [H, W, C, B] -> [C, G]."""
    if num_groups == 1:
        return x.mean((0, 1, 3))[:, None]

    # XLA reduces on CPU by a library that has crashed on such arrays of five axes.
    def on_cpu(x):
        groups = jnp.split(x, num_groups, axis=3)
        return jnp.stack([group.mean((0, 1, 3)) for group in groups], axis=1)

    def elsewhere(x):
        return x.reshape(*x.shape[:3], num_groups, -1).mean((0, 1, 4))

    return jax.lax.platform_dependent(x, cpu=on_cpu, default=elsewhere)


def _spread(values: Array, x: Array) -> Array:
    """Of each group to its images: [C, G] -> [C, B], or [C, 1] of one group."""
    channels, num_groups = values.shape
    if num_groups == 1:
        return values
    shape = (channels, num_groups, x.shape[3] // num_groups)
    return jnp.broadcast_to(values[..., None], shape).reshape(channels, -1)
