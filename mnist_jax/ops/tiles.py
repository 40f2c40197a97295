"""Images cut into the tiles that 2x2 groups of a convolution's outputs see.

A tile of an h x w kernel is [h + 1, w + 1], and tiles are two rows and two columns
apart. They are held as a grid: at each of a tile's places the values of all tiles.

Shapes: B images [H, W, C, B]; R x S tiles each; N = R S B.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mnist_jax.ops.platform import fusion_barrier

Array = jax.Array
Grid = Sequence[Sequence[Array]]  # arrays by row and column of a tile


def gather(images: Array, h: int, w: int) -> Grid:
    """The tiles: at each of their places the values of all tiles, [C, R, S, B]."""
    rows, columns = (images.shape[0] - h + 1) // 2, (images.shape[1] - w + 1) // 2
    return [
        [
            images[y : y + 2 * rows - 1 : 2, x : x + 2 * columns - 1 : 2].transpose(
                2, 0, 1, 3
            )
            for x in range(w + 1)
        ]
        for y in range(h + 1)
    ]


def join(tiles: Grid, height: int, width: int) -> Array:
    """The adjoint of `gather`: adds up tiles [C, R, S, B] to images [H, W, C, B]."""
    return fusion_barrier(lambda tiles: _assemble(tiles, height, width), tiles)


def _assemble(tiles, height, width):
    channels, rows, columns, batch = tiles[0][0].shape
    # [H/2, 2, W/2, 2, C, B]: tiles are two rows apart, so that row 2i + y of all
    # tiles is row y of the pairs from the i-th on.
    pairs = (-(-height // 2), 2, -(-width // 2), 2, channels, batch)
    images = jnp.zeros(pairs, tiles[0][0].dtype)
    shape = (rows, 1, columns, 1, channels, batch)
    for y, row in enumerate(tiles):
        for x, d in enumerate(row):
            place = (y // 2, y % 2, x // 2, x % 2, 0, 0)
            before = jax.lax.dynamic_slice(images, place, shape)
            own = d.transpose(1, 2, 0, 3).reshape(shape)
            images = jax.lax.dynamic_update_slice(images, before + own, place)
    images = images.reshape(2 * pairs[0], 2 * pairs[2], channels, batch)
    return images[:height, :width]


def flat(x: Array) -> Array:
    """[K, R, S, B] -> [K, N]."""
    return x.reshape(len(x), -1)
