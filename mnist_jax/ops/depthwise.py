"""3x3 convolution of each map by itself, padded with zeros to the size that it had.

XLA's CPU compiler fuses the padding into the sum of nine products, which is then not
vectorised, and adds up the kernel's gradient number by number, since the order of a sum
is fixed. So on CPU each is a loop of its own, and the gradient's sums over rows and
columns are written out: what remains innermost are the images, which vectors hold.

Shapes: maps [C, H, W, B], kernels [C, 3, 3].
"""

import jax
import jax.numpy as jnp

from mnist_jax.ops.platform import fusion_barrier

Array = jax.Array

_TAPS = [(y, x) for y in range(3) for x in range(3)]
_LONGEST = 32  # rows or columns whose sum is written out, which takes time to compile


def depthwise(maps: Array, kernel: Array) -> Array:
    """Cross-correlation: float32 [C, H, W, B], [C, 3, 3] -> [C, H, W, B]."""

    def plain(maps, kernel):
        return _sum_of_taps(_pad(maps), kernel)

    if max(maps.shape[1:3]) > _LONGEST:
        return plain(maps, kernel)
    return jax.lax.platform_dependent(maps, kernel, cpu=_on_cpu, default=plain)


@jax.custom_vjp
def _on_cpu(maps: Array, kernel: Array) -> Array:
    return _forward(maps, kernel)[0]


def _forward(maps, kernel):
    padded = fusion_barrier(_pad, maps)
    return fusion_barrier(_sum_of_taps, padded, kernel), (padded, kernel)


def _backward(saved, grads):
    padded, kernel = saved
    _, height, width, _ = grads.shape
    turned = kernel[:, ::-1, ::-1]
    maps_grad = fusion_barrier(_sum_of_taps, fusion_barrier(_pad, grads), turned)

    def over_columns(grads, padded):  # -> [9, C, H, B]
        return jnp.stack(
            [
                sum(
                    grads[:, :, j] * padded[:, y : y + height, x + j]
                    for j in range(width)
                )
                for y, x in _TAPS
            ]
        )

    def over_rows(sums):  # -> [9, C, B]
        return sum(sums[:, :, i] for i in range(height))

    sums = fusion_barrier(over_columns, grads, padded)
    kernel_grad = fusion_barrier(over_rows, sums).sum(-1)
    return maps_grad, kernel_grad.T.reshape(kernel.shape)


_on_cpu.defvjp(_forward, _backward)


def _pad(maps: Array) -> Array:
    return jnp.pad(maps, ((0, 0), (1, 1), (1, 1), (0, 0)))


def _sum_of_taps(padded: Array, kernel: Array) -> Array:
    height, width = (n - 2 for n in padded.shape[1:3])
    return sum(
        kernel[:, y, x, None, None, None] * padded[:, y : y + height, x : x + width]
        for y, x in _TAPS
    )
