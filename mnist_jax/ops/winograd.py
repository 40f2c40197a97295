"""3x3 convolution by Winograd's algorithm (Lavin and Gray, "Fast Algorithms for
Convolutional Neural Networks", 2016).

The four outputs of a tile d [4, 4] for a kernel g are A^T [(G g G^T) * (B^T d B)] A,
where * is the product at each of 16 places, for all channels a matmul: 16 MACs
instead of 36.

Shapes: see `tiles.py`; kernels [3, 3, C, F].
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mnist_jax.ops.platform import fusion_barrier
from mnist_jax.ops.precision import (
    load,
    matmul,
    matmul_transposed,
    operand,
    store,
)
from mnist_jax.ops.tiles import Grid, flat, gather, map_grids

Array = jax.Array


def is_worth_it(kernel: Array) -> bool:
    """Not for images of one channel, whose matmuls would be too thin."""
    return kernel.shape[:2] == (3, 3) and kernel.shape[2] > 1


def outputs(
    images: Array, kernel: Array, finish: Callable[[Grid], Any], dtype: jnp.dtype
):
    """`finish` of the tiles' outputs, a 2x2 grid of [F, N]; what gradients need.

    `dtype` is that of the matmuls' operands, see `precision.py`.
    """

    def make_tiles(images):
        tiles = _both(_tile, gather(images, 3, 3))
        return map_grids(lambda d: store(d, dtype), tiles)

    tiles = map_grids(flat, fusion_barrier(make_tiles, images))
    kernels = _both(_kernel, kernel.transpose(0, 1, 3, 2))  # [F, C] each
    products = map_grids(
        lambda u, v: matmul(operand(u, dtype), load(v)), kernels, tiles
    )
    finished = fusion_barrier(
        lambda products: finish(_both(_output, products)), products
    )
    return finished, (tiles, kernels)


def gradients(
    saved: tuple[Grid, Grid],
    spread: Callable[..., Grid],
    at_outputs: tuple[Array, ...],
    dtype: jnp.dtype,
):
    """Gradients at the tiles, a grid of [C, N], and at the kernel.

    `spread(*at_outputs)` is the gradient at the outputs, a 2x2 grid of [F, R, S, B].
    """
    tiles, kernels = saved

    def make_products(*at_outputs):
        at_products = _both(_output_adjoint, spread(*at_outputs))
        return map_grids(lambda m: store(m, dtype), at_products)

    at_products = fusion_barrier(make_products, *at_outputs)
    at_products = map_grids(lambda m: load(flat(m)), at_products)
    kernel_grad = map_grids(
        lambda m, v: matmul_transposed(m, load(v)), at_products, tiles
    )
    kernel_grad = jnp.array(_both(_kernel_adjoint, kernel_grad))
    tile_grads = map_grids(
        lambda u, m: matmul(operand(u.T, dtype), m), kernels, at_products
    )
    tile_grads = fusion_barrier(lambda grads: _both(_tile_adjoint, grads), tile_grads)
    return tile_grads, kernel_grad.transpose(0, 1, 3, 2)


def _both(transform: Callable, grid: Grid) -> Grid:
    """`transform` along the columns, then along the rows."""
    rows = zip(*[transform(column) for column in zip(*grid, strict=True)], strict=True)
    return [transform(row) for row in rows]


def _tile(d):
    """B^T d, along one axis."""
    return d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]


def _tile_adjoint(v):
    """B v."""
    return v[0], v[1] - v[2] + v[3], v[1] + v[2] - v[0], -v[3]


def _kernel(g):
    """G g."""
    return g[0], (g[0] + g[1] + g[2]) / 2, (g[0] - g[1] + g[2]) / 2, g[2]


def _kernel_adjoint(u):
    """G^T u."""
    return u[0] + (u[1] + u[2]) / 2, (u[1] - u[2]) / 2, (u[1] + u[2]) / 2 + u[3]


def _output(m):
    """A^T m."""
    return m[0] + m[1] + m[2], m[1] - m[2] - m[3]


def _output_adjoint(y):
    """A y."""
    return y[0], y[0] + y[1], y[0] - y[1], -y[1]
