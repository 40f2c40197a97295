"""Convolution for GPUs and TPUs: by XLA, which on GPUs calls cuDNN.

What needs no matmul, a convolution of one channel, is fused with its pooling. All else
here is for memory: what is kept for the backward pass, and when it can be freed.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mnist_jax.ops.pooling import spread
from mnist_jax.ops.precision import operand

Array = jax.Array

_LAYOUT = ("HWCN", "HWIO", "HWCN")


def convolve(images: Array, kernel: Array, stride: int, dtype: jnp.dtype) -> Array:
    """See `convolution.convolve`, with a stride."""
    # Accelerators add bfloat16 products up in float32 whatever they return.
    outputs = jax.lax.platform_dependent(
        operand(images, dtype),
        operand(kernel, dtype),
        cuda=functools.partial(_convolve, stride),
        default=functools.partial(_by_xla, stride),
    )
    return outputs.astype(images.dtype)


def _by_xla(stride, images, kernel):
    return jax.lax.conv_general_dilated(
        images, kernel, (stride, stride), "VALID", dimension_numbers=_LAYOUT
    )


_convolve = jax.custom_vjp(_by_xla, nondiff_argnums=(0,))


def _convolve_forward(stride, images, kernel):
    return _by_xla(stride, images, kernel), (images, kernel)


def _convolve_backward(stride, residuals, grads):
    images, kernel = residuals
    _, pull_back = jax.vjp(lambda k: _by_xla(stride, images, k), kernel)
    [kernel_grad] = pull_back(grads)
    # Then the images are no longer needed, and leave their memory to their gradient.
    grads, kernel_grad = jax.lax.optimization_barrier((grads, kernel_grad))
    _, pull_back = jax.vjp(lambda x: _by_xla(stride, x, kernel), images)
    return *pull_back(grads), kernel_grad


_convolve.defvjp(_convolve_forward, _convolve_backward)


@jax.custom_vjp
def relu(x: Array) -> Array:
    """As `jax.nn.relu`; keeps signs for the gradient, a byte each, instead of x."""
    return jnp.maximum(x, 0)


def _relu_forward(x):
    # Without the barrier the signs are taken from x anew, which is kept for that.
    return relu(x), jax.lax.optimization_barrier(x > 0)


def _relu_backward(is_positive, grads):
    return (jnp.where(is_positive, grads, 0),)


relu.defvjp(_relu_forward, _relu_backward)


@jax.custom_vjp
def conv_pool(images: Array, kernel: Array) -> Array:
    """See `convolution.conv_pool`, of one channel and in float32.

    One kernel adds up the products of a window, keeps the maximum and its place, and
    writes no maps. The gradient of the kernel is a sum for each of its places, of the
    gradients times the pixel that the winner saw.
    """
    return _conv_pool_forward(images, kernel)[0]


def _conv_pool_forward(images, kernel):
    # Channels innermost, as cuDNN has them: from there on nothing is transposed.
    images = images.transpose(3, 0, 1, 2)  # [B, H, W, 1]
    h, w, _, features = kernel.shape
    rows, columns = (images.shape[1] - h + 1) // 2, (images.shape[2] - w + 1) // 2
    maps = sum(
        kernel[i, j, 0] * images[:, i : i + 2 * rows, j : j + 2 * columns]
        for i in range(h)
        for j in range(w)
    )
    windows = maps.reshape(len(images), rows, 2, columns, 2, features)
    y, x = (jax.lax.broadcasted_iota(jnp.int8, windows.shape, i) for i in (2, 4))

    def larger(a, b):
        # In whatever order they come: the first place of equal ones; NaN is largest.
        is_first_place = (b[0] == a[0]) & (b[1] < a[1])
        is_second = (b[0] > a[0]) | jnp.isnan(b[0]) | is_first_place
        return jax.tree.map(functools.partial(jnp.where, is_second), b, a)

    # One reduction of values and places, into which the sums above are fused.
    start = windows.dtype.type(-np.inf), np.int8(0)
    pooled, which = jax.lax.reduce((windows, 2 * y + x), start, larger, (2, 4))
    return pooled.transpose(1, 2, 3, 0), (images, kernel, which)


def _conv_pool_backward(residuals, grads):
    images, kernel, which = residuals
    grads = grads.transpose(3, 0, 1, 2)  # [B, R, S, F]
    h, w, _, _ = kernel.shape
    rows, columns = (2 * n for n in grads.shape[1:3])

    def seen(i, j):
        """The pixel at place [i, j] of the kernel, where it made the maximum."""
        at = [
            images[:, y + i : y + i + rows : 2, x + j : x + j + columns : 2]
            for y, x in ((0, 0), (0, 1), (1, 0), (1, 1))
        ]
        top = jnp.where(which == 0, at[0], at[1])
        return jnp.where(which < 2, top, jnp.where(which == 2, at[2], at[3]))

    # All sums in one kernel, then over images in another.
    of_images = [(grads * seen(i, j)).sum((1, 2)) for i in range(h) for j in range(w)]
    kernel_grad = jnp.stack(of_images).sum(1).reshape(kernel.shape)
    at_maps = spread(*(x.transpose(1, 2, 3, 0) for x in (grads, which)))
    return _images_grad(images, kernel, at_maps), kernel_grad


def _images_grad(images, kernel, at_maps):
    """Of the images, [H, W, 1, B]; nothing but saliency maps reads it."""
    height, width = (at_maps.shape[i] + kernel.shape[i] - 1 for i in (0, 1))

    def convolve(images):  # [B, H, W, 1] -> [2R, 2S, F, B]
        return jax.lax.conv_general_dilated(
            images[:, :height, :width],
            kernel,
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "HWCN"),
        )

    [grad] = jax.linear_transpose(convolve, images)(at_maps)
    return grad.transpose(1, 2, 3, 0)


conv_pool.defvjp(_conv_pool_forward, _conv_pool_backward)
