"""Images cut into the tiles that 2x2 groups of a convolution's outputs see.

A tile of an h x w kernel is [h + 1, w + 1], and tiles are two rows and two columns
apart. They are held as a grid: at each of a tile's places the values of all tiles.

Shapes: B images [C, H, W, B]; R x S tiles each; N = R S B.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from mnist_jax.ops.platform import fusion_barrier

Array = jax.Array
Grid = Sequence[Sequence[Array]]  # arrays by row and column of a tile


def gather(images: Array, h: int, w: int) -> Grid:
    """The tiles: at each of their places the values of all tiles, [C, R, S, B]."""
    rows, columns = (images.shape[1] - h + 1) // 2, (images.shape[2] - w + 1) // 2
    return [
        [
            images[:, y : y + 2 * rows - 1 : 2, x : x + 2 * columns - 1 : 2]
            for x in range(w + 1)
        ]
        for y in range(h + 1)
    ]


def assemble(tiles: Grid, height: int, width: int) -> Array:
    """The adjoint of `gather`: adds up tiles [C, R, S, B] to images [C, H, W, B]."""
    channels, rows, columns, batch = tiles[0][0].shape
    # [C, H/2, 2, W/2, 2, B]: tiles are two rows apart, so that row 2i + y of all
    # tiles is row y of the pairs from the i-th on.
    pairs = (channels, -(-height // 2), 2, -(-width // 2), 2, batch)
    images = jnp.zeros(pairs, tiles[0][0].dtype)
    shape = (channels, rows, 1, columns, 1, batch)
    for y, row in enumerate(tiles):
        for x, d in enumerate(row):
            place = (0, y // 2, y % 2, x // 2, x % 2, 0)
            before = jax.lax.dynamic_slice(images, place, shape)
            images = jax.lax.dynamic_update_slice(
                images, before + d.reshape(shape), place
            )
    images = images.reshape(channels, 2 * pairs[1], 2 * pairs[3], batch)
    return images[:, :height, :width]


def join(tiles: Grid, height: int, width: int) -> Array:
    """`assemble` in a loop of its own."""
    return fusion_barrier(lambda tiles: assemble(tiles, height, width), tiles)


def flat(x: Array) -> Array:
    """[K, R, S, B] -> [K, N]."""
    return x.reshape(len(x), -1)


def map_grids(function: Callable, *grids: Grid) -> Grid:
    """`function` of the arrays at the same place."""
    return [
        [function(*arrays) for arrays in zip(*rows, strict=True)]
        for rows in zip(*grids, strict=True)
    ]
