"""3x3 convolution of each map by itself, padded with zeros to the size that it had.

XLA's CPU compiler fuses the padding into the sum of nine products, which is then not
vectorised, and adds up the kernel's gradient number by number, since the order of a sum
is fixed. So on CPU each is a loop of its own, and the gradient's sums over rows and
columns are written out: what remains innermost are the images, which vectors hold.

Shapes: maps [C, H, W, B], kernels [C, 3, 3].
"""

import functools

import jax
import jax.numpy as jnp

from mnist_jax.ops.platform import fusion_barrier

Array = jax.Array

_LONGEST = 32  # rows or columns whose sum is written out, which takes time to compile


def depthwise(maps: Array, kernel: Array, dilation: int = 1) -> Array:
    """Cross-correlation with taps `dilation` places apart (Yu and Koltun, 2016).

    Args:
      maps: float32 [C, H, W, B].
      kernel: float32 [C, 3, 3].
      dilation: at least 1, which is a kernel without holes.

    Returns:
      float32 [C, H, W, B].
    """

    def plain(maps, kernel):
        return _sum_of_taps(dilation, _pad(dilation, maps), kernel)

    if max(maps.shape[1:3]) > _LONGEST:
        return plain(maps, kernel)
    on_cpu = functools.partial(_on_cpu, dilation)
    return jax.lax.platform_dependent(maps, kernel, cpu=on_cpu, default=plain)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _on_cpu(dilation: int, maps: Array, kernel: Array) -> Array:
    return _forward(dilation, maps, kernel)[0]


def _forward(dilation, maps, kernel):
    pad = functools.partial(_pad, dilation)
    sum_of_taps = functools.partial(_sum_of_taps, dilation)
    padded = fusion_barrier(pad, maps)
    return fusion_barrier(sum_of_taps, padded, kernel), (padded, kernel)


def _backward(dilation, saved, grads):
    padded, kernel = saved
    _, height, width, _ = grads.shape
    # Its transpose is a cross-correlation with the kernel turned by half a turn.
    maps_grad, _ = _forward(dilation, grads, kernel[:, ::-1, ::-1])

    def over_columns(grads, padded):  # -> [9, C, H, B]
        return jnp.stack(
            [
                sum(
                    grads[:, :, j] * padded[:, y : y + height, x + j]
                    for j in range(width)
                )
                for y, x in _taps(dilation)
            ]
        )

    def over_rows(sums):  # -> [9, C, B]
        return sum(sums[:, :, i] for i in range(height))

    sums = fusion_barrier(over_columns, grads, padded)
    kernel_grad = fusion_barrier(over_rows, sums).sum(-1)
    return maps_grad, kernel_grad.T.reshape(kernel.shape)


_on_cpu.defvjp(_forward, _backward)


def _taps(dilation: int) -> list[tuple[int, int]]:
    """Rows and columns of the padded maps where each tap begins."""
    return [(dilation * y, dilation * x) for y in range(3) for x in range(3)]


def _pad(dilation: int, maps: Array) -> Array:
    around = (dilation, dilation)
    return jnp.pad(maps, ((0, 0), around, around, (0, 0)))


def _sum_of_taps(dilation: int, padded: Array, kernel: Array) -> Array:
    height, width = (n - 2 * dilation for n in padded.shape[1:3])
    weights = kernel.reshape(len(kernel), 9, 1, 1, 1)
    return sum(
        weights[:, i] * padded[:, y : y + height, x : x + width]
        for i, (y, x) in enumerate(_taps(dilation))
    )
