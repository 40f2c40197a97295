"""Convolution, alone or followed by 2x2 pooling as one operation with its own gradient.

XLA's CPU gradients of a convolution and of `reduce_window` take most of a
convolutional network's step. So on CPU the four outputs in a 2x2 window are computed
together from the tile of the image that they see, by matmuls over all tiles: for 3x3
kernels by Winograd's algorithm (`winograd.py`); where pooling follows, for images of
one channel in one loop (`one_channel.py`) and for other kernels by the tiles as they
are times the kernel at each of the four places in the tile. Of a maximum, the place
that won is all that the gradient needs. A mean of four outputs is one output of the
mean of the four placed kernels. GPU and TPU
get XLA's own convolution; `jax.lax.platform_dependent` decides at lowering, so that
one program serves all.

Images are [channels, rows, columns, images]: the slices that gather tiles step over
rows and columns and leave runs of images together.

Shapes: B images [C, H, W, B], a kernel [h, w, C, F], stride 1, no padding ("VALID");
R = (H - h + 1) // 2 times S = (W - w + 1) // 2 tiles; N = R S B.
"""

import functools

import jax
import jax.numpy as jnp

from mnist_jax.ops import one_channel, winograd
from mnist_jax.ops.platform import fusion_barrier
from mnist_jax.ops.pooling import max_of_four, max_pool, pool_grid, route, windows
from mnist_jax.ops.precision import (
    load,
    matmul,
    matmul_transposed,
    operand,
    store,
)
from mnist_jax.ops.tiles import flat, gather, join, map_grids

Array = jax.Array

_LAYOUT = ("CHWN", "HWIO", "CHWN")


def conv_pool(images: Array, kernel: Array, dtype: jnp.dtype = jnp.float32) -> Array:
    """`max_pool(convolve(images, kernel))`.

    Bias and ReLU may come after it: both are monotonic, so they commute with the
    maximum, on a quarter of the values.

    Args:
      images: float32 [C, H, W, B].
      kernel: float32 [h, w, C, F].
      dtype: of the operands, see `precision.py`.

    Returns:
      float32 [F, R, S, B].
    """

    def on_cpu(images, kernel):
        if winograd.is_worth_it(kernel):
            return _winograd(True, dtype, images, kernel)
        if len(images) == 1:
            return one_channel.conv_pool(dtype, images, kernel)
        return max_of_four(_strided(dtype, images, _placed(kernel)))

    def elsewhere(images, kernel):
        return max_pool(_xla_convolve(images, kernel, 1, dtype))

    return jax.lax.platform_dependent(images, kernel, cpu=on_cpu, default=elsewhere)


def conv_mean(images: Array, kernel: Array, dtype: jnp.dtype = jnp.float32) -> Array:
    """The mean over 2x2 windows, stride 2, of `convolve(images, kernel)`.

    Args and result: as of `conv_pool`.
    """
    h, w, channels, features = kernel.shape
    mean = _placed(kernel).reshape(h + 1, w + 1, channels, 4, features).mean(3)
    return jax.lax.platform_dependent(
        images,
        mean,
        cpu=functools.partial(_strided, dtype),
        default=lambda x, k: _xla_convolve(x, k, 2, dtype),
    )


def convolve(images: Array, kernel: Array, dtype: jnp.dtype = jnp.float32) -> Array:
    """Cross-correlation without padding: [C, H, W, B] -> [F, H-h+1, W-w+1, B]."""

    def elsewhere(images, kernel):
        return _xla_convolve(images, kernel, 1, dtype)

    if not winograd.is_worth_it(kernel):
        return elsewhere(images, kernel)

    def on_cpu(images, kernel):
        height, width = images.shape[1] - 2, images.shape[2] - 2
        even = ((0, 0), (0, height % 2), (0, width % 2), (0, 0))
        return _winograd(False, dtype, jnp.pad(images, even), kernel)[
            :, :height, :width
        ]

    return jax.lax.platform_dependent(images, kernel, cpu=on_cpu, default=elsewhere)


def _xla_convolve(images, kernel, stride, dtype):
    # Accelerators add bfloat16 products up in float32 whatever they return.
    outputs = jax.lax.conv_general_dilated(
        operand(images, dtype),
        operand(kernel, dtype),
        (stride, stride),
        "VALID",
        dimension_numbers=_LAYOUT,
    )
    return outputs.astype(images.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _winograd(pooled: bool, dtype: jnp.dtype, images: Array, kernel: Array) -> Array:
    """`conv_pool` if `pooled`, else all outputs of the tiles, [F, 2R, 2S, B]."""
    return _winograd_forward(pooled, dtype, images, kernel)[0]


def _winograd_forward(pooled, dtype, images, kernel):
    _, height, width, batch = images.shape
    shape = (kernel.shape[-1], (height - 2) // 2, (width - 2) // 2, batch)
    if pooled:
        finished, saved = winograd.outputs(images, kernel, pool_grid, dtype)
        outputs, which = (x.reshape(shape) for x in finished)
    else:
        grid, saved = winograd.outputs(images, kernel, lambda grid: grid, dtype)
        grid = map_grids(lambda x: x.reshape(shape), grid)
        outputs = join(grid, 2 * shape[1], 2 * shape[2])
        which = None
    # An empty slice carries the images' shape without keeping the images.
    return outputs, (saved, which, images[..., :0])


def _winograd_backward(pooled, dtype, residuals, grads):
    saved, which, no_images = residuals
    if pooled:
        spread, at_outputs = route, (grads, which)
    else:
        spread, at_outputs = windows, (grads,)
    tile_grads, kernel_grad = winograd.gradients(saved, spread, at_outputs, dtype)
    rows, columns = (n // 2 - 1 for n in no_images.shape[1:3])
    shape = (len(no_images), rows, columns, grads.shape[-1])
    tile_grads = map_grids(lambda d: d.reshape(shape), tile_grads)
    return join(tile_grads, *no_images.shape[1:3]), kernel_grad


_winograd.defvjp(_winograd_forward, _winograd_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _strided(dtype: jnp.dtype, images: Array, kernel: Array) -> Array:
    """Cross-correlation with stride 2: kernel [h + 1, w + 1, C, G] -> [G, R, S, B]."""
    return _strided_forward(dtype, images, kernel)[0]


def _strided_forward(dtype, images, kernel):
    h, w = kernel.shape[0] - 1, kernel.shape[1] - 1

    def make_tiles(images):
        return [store(d, dtype) for d in sum(gather(images, h, w), [])]

    tiles = fusion_barrier(make_tiles, images)
    patches = jnp.concatenate([flat(d) for d in tiles])  # [(h+1)(w+1)C, N]
    outputs = matmul(operand(_as_matrix(kernel), dtype), load(patches))
    outputs = outputs.reshape(-1, *tiles[0].shape[1:])
    return outputs, (patches, kernel, images[..., :0])


def _strided_backward(dtype, residuals, grads):
    patches, kernel, no_images = residuals
    height, width, channels, _ = kernel.shape
    grads_flat = operand(flat(grads), dtype)
    kernel_grad = matmul_transposed(grads_flat, load(patches))
    kernel_grad = kernel_grad.reshape(-1, height, width, channels)
    tile_grads = matmul(operand(_as_matrix(kernel).T, dtype), grads_flat)
    tile_grads = tile_grads.reshape(height, width, channels, *grads.shape[1:])
    images_grad = join(tile_grads, *no_images.shape[1:3])
    return images_grad, kernel_grad.transpose(1, 2, 3, 0)


_strided.defvjp(_strided_forward, _strided_backward)


def _as_matrix(kernel: Array) -> Array:
    """[h, w, C, F] -> [F, h w C]."""
    return kernel.reshape(-1, kernel.shape[-1]).T


def _placed(kernel: Array) -> Array:
    """The kernel at the four places in a tile: [h + 1, w + 1, C, 4F]."""
    placed = [
        jnp.pad(kernel, ((y, 1 - y), (x, 1 - x), (0, 0), (0, 0)))
        for y in (0, 1)
        for x in (0, 1)
    ]
    return jnp.concatenate(placed, axis=-1)
