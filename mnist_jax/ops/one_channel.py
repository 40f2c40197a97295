"""Convolution of images of one channel, followed by 2x2 pooling, on CPU.

The matmuls of so few channels would be thin, and would write the four outputs of every
window to memory. One elementwise loop adds up the products of a tile, keeps the
maximum and writes that alone. The gradient of the kernel is a matmul of what the
maximum lets through with the tiles, for each of the four places in a window.

Shapes: see `tiles.py`; kernels [h, w, 1, F].
"""

import functools

import jax
import jax.numpy as jnp

from mnist_jax.ops.platform import fusion_barrier
from mnist_jax.ops.pooling import pool_grid, route
from mnist_jax.ops.precision import load, matmul, matmul_transposed, operand, store
from mnist_jax.ops.tiles import flat, gather, join

Array = jax.Array

_PLACES = [(y, x) for y in (0, 1) for x in (0, 1)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def conv_pool(dtype: jnp.dtype, images: Array, kernel: Array) -> Array:
    """See `convolution.conv_pool`: [H, W, 1, B] -> [R, S, F, B].

    The sums of the outputs are of float32 operands whatever `dtype` says.
    """
    return _forward(dtype, images, kernel)[0]


def _forward(dtype, images, kernel):
    h, w, _, _ = kernel.shape
    tiles = fusion_barrier(lambda images: gather(images, h, w), images)

    def by_place(k, d):  # -> [R, S, F, B]
        return k[:, None] * d[:, :, None]

    def by_feature(k, d):  # -> [F, R, S, B]
        return k[:, None, None, None] * d

    def pool(kernel, tiles):
        def outputs(product):
            return [
                [
                    sum(
                        product(kernel[i, j, 0], tiles[y + i][x + j][0])
                        for i in range(h)
                        for j in range(w)
                    )
                    for x in (0, 1)
                ]
                for y in (0, 1)
            ]

        # XLA makes a loop for each of the two in any case; so each has its own layout.
        pooled, _ = pool_grid(outputs(by_place))
        _, which = pool_grid(outputs(by_feature))
        return pooled, which

    pooled, which = fusion_barrier(pool, kernel, tiles)
    # An empty slice carries the images' shape without keeping the images.
    return pooled, (tiles, which, kernel, images[..., :0])


def _backward(dtype, residuals, grads):
    tiles, which, kernel, no_images = residuals
    h, w, _, features = kernel.shape
    rows, columns, _, batch = grads.shape
    patches = jnp.concatenate([flat(d) for row in tiles for d in row])
    patches = load(store(patches, dtype))  # [(h+1)(w+1), N]

    def spread(grads, which):
        routed = sum(route(grads.transpose(2, 0, 1, 3), which), [])
        return [store(d, dtype) for d in routed]

    at_outputs = [load(flat(d)) for d in fusion_barrier(spread, grads, which)]
    kernel_grad, at_patches = 0.0, 0.0
    for (y, x), d in zip(_PLACES, at_outputs, strict=True):
        of_tile = matmul_transposed(d, patches).reshape(features, h + 1, w + 1)
        kernel_grad += of_tile[:, y : y + h, x : x + w]
        placed = jnp.pad(kernel[:, :, 0], ((y, 1 - y), (x, 1 - x), (0, 0)))
        at_patches += matmul(operand(placed.reshape(-1, features), dtype), d)
    tile_grads = at_patches.reshape(h + 1, w + 1, 1, rows, columns, batch)
    images_grad = join(tile_grads, *no_images.shape[:2])
    return images_grad, kernel_grad.transpose(1, 2, 0)[:, :, None]


conv_pool.defvjp(_forward, _backward)
