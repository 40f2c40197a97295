"""Maximum over 2x2 windows with stride 2, of maps [H, W, F, B] and of grids.

A grid holds the four values of every window, see `tiles.py`. Of a maximum, the place
that won is all that the gradient needs.
"""

import jax
import jax.numpy as jnp

from mnist_jax.ops.platform import fusion_barrier
from mnist_jax.ops.tiles import Grid

Array = jax.Array


def max_pool(maps: Array) -> Array:
    """Maximum over 2x2 windows with stride 2: [H, W, F, B] -> [H//2, W//2, F, B].

    Its gradient reads no maps, so that they need not be kept.
    """
    height, width = maps.shape[0] // 2 * 2, maps.shape[1] // 2 * 2
    return _max_pool(maps[:height, :width])


def _windows(maps: Array) -> Grid:
    """[2R, 2S, F, B] -> the four places of its 2x2 windows, [R, S, F, B] each."""
    return [[maps[y::2, x::2] for x in (0, 1)] for y in (0, 1)]


@jax.custom_vjp
def _max_pool(maps: Array) -> Array:
    """Of [2R, 2S, F, B]."""
    return _pool_forward(maps)[0]


def _pool_forward(maps):
    return fusion_barrier(lambda maps: pool_grid(_windows(maps)), maps)


def _pool_backward(which, grads):
    return (spread(grads, which),)


def spread(grads: Array, which: Array) -> Array:
    """The gradient at the maps, [2R, 2S, F, B], of that at their maxima."""
    rows, columns, features, batch = grads.shape

    def at_windows(grads, which):  # -> [R, 2, S, 2, F, B]
        places = jnp.arange(4, dtype=jnp.int8).reshape(2, 1, 2, 1, 1)
        return jnp.where(
            which[:, None, :, None] == places, grads[:, None, :, None], 0.0
        )

    at_maps = fusion_barrier(at_windows, grads, which)
    return at_maps.reshape(2 * rows, 2 * columns, features, batch)


_max_pool.defvjp(_pool_forward, _pool_backward)


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
