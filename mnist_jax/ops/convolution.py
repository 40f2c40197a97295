"""Convolution followed by 2x2 max-pooling, as one operation with its own gradient.

XLA's CPU gradients of a convolution and of `reduce_window` take most of a
convolutional network's step. Here each of the four positions inside a pooling window
is one matrix product of patches, the maximum is taken over the four, and the
position that won is kept as int8: the gradient needs nothing else. On other
platforms XLA's own kernels are better and are used.

Shapes: B images of [H, W, C], a kernel [h, w, C, F], both strides 1, no padding
("VALID"); the pooled map is [B, (H - h + 1) // 2, (W - w + 1) // 2, F].
"""

import jax
import jax.numpy as jnp

Array = jax.Array

# The places inside a 2x2 pooling window, in the order in which ties are decided.
_OFFSETS = ((0, 0), (0, 1), (1, 0), (1, 1))


def conv_pool(images: Array, kernel: Array) -> Array:
    """`max_pool(convolve(images, kernel))`.

    Bias and ReLU may come after it: both are monotonic, so they commute with the
    maximum, on a quarter of the values.

    Args:
      images: float32 [B, H, W, C].
      kernel: float32 [h, w, C, F].

    Returns:
      float32 [B, (H - h + 1) // 2, (W - w + 1) // 2, F].
    """
    if jax.default_backend() == "cpu":
        return _conv_pool(images, kernel)
    return max_pool(convolve(images, kernel))


def convolve(images: Array, kernel: Array) -> Array:
    """Cross-correlation without padding: [B, H, W, C] -> [B, H-h+1, W-w+1, F]."""
    return jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def max_pool(maps: Array) -> Array:
    """Maximum over 2x2 windows with stride 2: [B, H, W, F] -> [B, H//2, W//2, F].

    Written as maxima of strided slices, whose gradient on CPU is much cheaper than
    that of `reduce_window`.
    """
    height, width = maps.shape[1] // 2 * 2, maps.shape[2] // 2 * 2
    a, b, c, d = (maps[:, y:height:2, x:width:2] for y, x in _OFFSETS)
    return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


@jax.custom_vjp
def _conv_pool(images: Array, kernel: Array) -> Array:
    return _conv_pool_forward(images, kernel)[0]


def _conv_pool_forward(images, kernel):
    h, w, _, features = kernel.shape
    rows, columns = (images.shape[1] - h + 1) // 2, (images.shape[2] - w + 1) // 2
    patches, matrices = _products(images, kernel, rows, columns)
    if len(patches) == 1:
        maps = jnp.split(patches[0] @ matrices, 4, axis=-1)
    else:
        maps = [patch @ matrices for patch in patches]
    a, b, c, d = maps
    top, bottom = jnp.maximum(a, b), jnp.maximum(c, d)
    winner = jnp.where(
        top >= bottom, jnp.where(a >= b, 0, 1), jnp.where(c >= d, 2, 3)
    ).astype(jnp.int8)
    pooled = jnp.maximum(top, bottom).reshape(-1, rows, columns, features)
    # An empty slice carries the images' shape without keeping the images.
    return pooled, (patches, winner, kernel, images[:0])


def _conv_pool_backward(saved, grads):
    patches, winner, kernel, no_images = saved
    h, w, channels, features = kernel.shape
    _, rows, columns, _ = grads.shape
    flat = grads.reshape(-1, features)
    routed = [jnp.where(winner == i, flat, 0.0) for i in range(4)]

    if len(patches) == 1:
        joint = patches[0].T @ jnp.concatenate(routed, axis=-1)
        joint = joint.reshape(h + 1, w + 1, 1, 4, features)
        kernel_grad = sum(
            joint[y : y + h, x : x + w, :, i] for i, (y, x) in enumerate(_OFFSETS)
        )
    else:
        kernel_grad = sum(p.T @ g for p, g in zip(patches, routed, strict=True))
        kernel_grad = kernel_grad.reshape(kernel.shape)

    # Gradient at the images: the routed gradients back in their places before the
    # pooling, then the convolution's adjoint, a convolution by the turned kernel.
    maps = jnp.stack(routed).reshape(2, 2, -1, rows, columns, features)
    maps = maps.transpose(2, 3, 0, 4, 1, 5).reshape(-1, 2 * rows, 2 * columns, features)
    _, height, width, _ = no_images.shape
    bottom, right = height - 2 * rows, width - 2 * columns
    maps = jnp.pad(maps, ((0, 0), (h - 1, bottom), (w - 1, right), (0, 0)))
    turned = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    return convolve(maps, turned), kernel_grad


_conv_pool.defvjp(_conv_pool_forward, _conv_pool_backward)


def _products(images, kernel, rows, columns):
    """The patch matrices, and the matrix they are multiplied with.

    Several channels: one patch matrix [B rows columns, h w C] per place in the
    pooling window, all for the kernel as [h w C, F]. One channel: patches that small
    leave the matrix unit idle, so a single patch matrix holds the union of the four
    windows, [B rows columns, (h+1) (w+1)], for the four shifted kernels side by
    side, [(h+1) (w+1), 4 F].
    """
    h, w, channels, features = kernel.shape

    def gather(top, left, height, width):
        shifted = [
            images[:, y : y + 2 * rows - 1 : 2, x : x + 2 * columns - 1 : 2]
            for y in range(top, top + height)
            for x in range(left, left + width)
        ]
        joined = jnp.concatenate(shifted, axis=-1)
        return joined.reshape(-1, height * width * channels)

    if channels > 1:
        patches = [gather(y, x, h, w) for y, x in _OFFSETS]
        return patches, kernel.reshape(-1, features)
    shifted = [
        jnp.pad(kernel[:, :, 0], ((y, 1 - y), (x, 1 - x), (0, 0))) for y, x in _OFFSETS
    ]
    matrix = jnp.stack(shifted, axis=2).reshape(-1, 4 * features)
    return [gather(0, 0, h + 1, w + 1)], matrix
