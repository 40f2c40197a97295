"""Convolution, alone or followed by 2x2 pooling.

XLA's CPU gradients of a convolution and of `reduce_window` take most of a
convolutional network's step. So on CPU 3x3 kernels go by Winograd's algorithm
(`winograd.py`), and images of one channel that are pooled in one loop
(`one_channel.py`). Where pooling follows other kernels, the four outputs in a 2x2
window are computed together from the tile of the image that they see: the tiles times
the kernel at each of the four places in the tile. A mean of four outputs is one output
of the mean of the four placed kernels. GPU and TPU get XLA's own convolution
(`plain_convolution.py`); `jax.lax.platform_dependent` decides at lowering, so that one
program serves all.

Images are [rows, columns, channels, images]: what lies at one place is one block of
memory, which loops over rows and columns read and write as a whole.

Shapes: B images [H, W, C, B], a kernel [h, w, C, F], stride 1, no padding ("VALID");
R = (H - h + 1) // 2 times S = (W - w + 1) // 2 tiles; N = R S B.
"""

import functools

import jax
import jax.numpy as jnp

from mnist_jax.ops import one_channel, plain_convolution, winograd
from mnist_jax.ops.platform import fusion_barrier
from mnist_jax.ops.pooling import max_of_four, max_pool
from mnist_jax.ops.precision import (
    is_mixed,
    load,
    matmul,
    matmul_transposed,
    operand,
    store,
)
from mnist_jax.ops.tiles import flat, gather, join

Array = jax.Array


def conv_pool(images: Array, kernel: Array, dtype: jnp.dtype = jnp.float32) -> Array:
    """`max_pool(convolve(images, kernel))`.

    Bias and ReLU may come after it: both are monotonic, so they commute with the
    maximum, on a quarter of the values.

    Args:
      images: float32 [H, W, C, B].
      kernel: float32 [h, w, C, F].
      dtype: of the operands, see `precision.py`; always float32 of Winograd's and, on
        GPUs, of one channel.

    Returns:
      float32 [R, S, F, B].
    """

    def on_cpu(images, kernel):
        if len(images[0, 0]) == 1:
            return one_channel.conv_pool(dtype, images, kernel)
        if _is_for_winograd(kernel):
            rows, columns = (n // 2 * 2 for n in images.shape[:2])
            return max_pool(_winograd(images[:rows, :columns], kernel))
        outputs = _strided(dtype, images, _placed(kernel))
        return max_of_four(outputs).transpose(1, 2, 0, 3)

    def elsewhere(images, kernel):
        return max_pool(plain_convolution.convolve(images, kernel, 1, dtype))

    def on_accelerators(images, kernel):
        # What is not pooled is not computed: of a convolution that is cropped cuDNN has
        # no gradient.
        sides = zip(images.shape[:2], kernel.shape[:2], strict=True)
        height, width = ((n - k + 1) // 2 * 2 + k - 1 for n, k in sides)
        return elsewhere(images[:height, :width], kernel)

    def on_cuda(images, kernel):
        if len(images[0, 0]) == 1:
            return plain_convolution.conv_pool(images, kernel)
        return on_accelerators(images, kernel)

    return jax.lax.platform_dependent(
        images,
        kernel,
        cpu=on_cpu,
        cuda=on_cuda,
        tpu=on_accelerators,
        default=elsewhere,
    )


def conv_pool_relu(
    images: Array, kernel: Array, bias: Array, dtype: jnp.dtype = jnp.float32
) -> Array:
    """`relu(conv_pool(images, kernel) + bias)`.

    In float32 on GPUs images of one channel, whose convolution is one short kernel,
    keep nothing for the backward pass, which computes it again. With bfloat16 that
    saves nothing.

    Args:
      images, kernel, dtype: as of `conv_pool`.
      bias: float32 [F].

    Returns:
      float32 [R, S, F, B].
    """

    def run(images, kernel, bias):
        return relu(conv_pool(images, kernel, dtype) + bias[:, None])

    if len(images[0, 0]) > 1 or is_mixed(dtype):
        return run(images, kernel, bias)
    again = jax.checkpoint(run)
    return jax.lax.platform_dependent(images, kernel, bias, cuda=again, default=run)


def conv_mean(images: Array, kernel: Array, dtype: jnp.dtype = jnp.float32) -> Array:
    """The mean over 2x2 windows, stride 2, of `convolve(images, kernel)`.

    Args and result: as of `conv_pool`.
    """
    h, w, channels, features = kernel.shape
    mean = _placed(kernel).reshape(h + 1, w + 1, channels, 4, features).mean(3)
    return jax.lax.platform_dependent(
        images,
        mean,
        cpu=lambda x, k: _strided(dtype, x, k).transpose(1, 2, 0, 3),
        default=lambda x, k: plain_convolution.convolve(x, k, 2, dtype),
    )


def convolve(images: Array, kernel: Array, dtype: jnp.dtype = jnp.float32) -> Array:
    """Cross-correlation without padding: [H, W, C, B] -> [H-h+1, W-w+1, F, B].

    Args: as of `conv_pool`.
    """

    def elsewhere(images, kernel):
        return plain_convolution.convolve(images, kernel, 1, dtype)

    if not _is_for_winograd(kernel):
        return elsewhere(images, kernel)
    return jax.lax.platform_dependent(images, kernel, cpu=_winograd, default=elsewhere)


def relu(x: Array) -> Array:
    """`jax.nn.relu`; on GPUs its backward pass reads a saved mask, not x."""
    kept = plain_convolution.relu
    return jax.lax.platform_dependent(x, cuda=kept, default=jax.nn.relu)


def _is_for_winograd(kernel: Array) -> bool:
    """Not for images of one channel, whose matmuls would be too thin."""
    return kernel.shape[:2] == (3, 3) and kernel.shape[2] > 1


def _winograd(images: Array, kernel: Array) -> Array:
    """Pads to whole tiles, and leaves out what comes of the padding."""
    height, width = (n - 2 for n in images.shape[:2])
    padding = [(0, -n % winograd.STEP) for n in (height, width)]
    outputs = winograd.convolve(jnp.pad(images, (*padding, (0, 0), (0, 0))), kernel)
    return outputs[:height, :width]


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
    images_grad = join(tile_grads, *no_images.shape[:2])
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
