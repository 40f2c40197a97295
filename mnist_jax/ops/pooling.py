"""Maximum over 2x2 windows with stride 2, of maps [F, H, W, B] and of grids.

A grid holds the four outputs of every window, see `tiles.py`. Of a maximum, the place
that won is all that the gradient needs.
"""

import jax
import jax.numpy as jnp

from mnist_jax.ops.platform import fusion_barrier
from mnist_jax.ops.tiles import Grid

Array = jax.Array


def max_pool(maps: Array) -> Array:
    """Maximum over 2x2 windows with stride 2: [F, H, W, B] -> [F, H//2, W//2, B].

    Written as maxima of strided slices, whose gradient on CPU is much cheaper than
    that of `reduce_window`.
    """
    height, width = maps.shape[1] // 2 * 2, maps.shape[2] // 2 * 2
    (a, b), (c, d) = windows(maps[:, :height, :width])
    return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


def windows(maps: Array) -> Grid:
    """[F, 2R, 2S, B] -> the four places of its 2x2 windows, [F, R, S, B] each."""
    return [[maps[:, y::2, x::2] for x in (0, 1)] for y in (0, 1)]


@jax.custom_vjp
def max_of_four(outputs: Array) -> Array:
    """[4F, R, S, B] -> [F, R, S, B]."""
    return _max_forward(outputs)[0]


def _max_forward(outputs):
    def pool(outputs):
        a, b, c, d = jnp.split(outputs, 4)
        return pool_grid(((a, b), (c, d)))

    return fusion_barrier(pool, outputs)


def _max_backward(which, grads):
    routed = fusion_barrier(lambda *pooled: sum(route(*pooled), []), grads, which)
    return (jnp.concatenate(routed),)


max_of_four.defvjp(_max_forward, _max_backward)


def pool_grid(outputs: Grid) -> tuple[Array, Array]:
    """The maximum of four, and which it was: int8, 2 * row + column."""
    (a, b), (c, d) = outputs
    top, bottom = jnp.maximum(a, b), jnp.maximum(c, d)
    right = jnp.where(bottom > top, d > c, b > a).astype(jnp.int8)
    return jnp.maximum(top, bottom), 2 * (bottom > top).astype(jnp.int8) + right


def route(grads: Array, which: Array) -> Grid:
    """The adjoint of `pool_grid`."""
    return [[jnp.where(which == 2 * y + x, grads, 0.0) for x in (0, 1)] for y in (0, 1)]
