"""Image transforms on the device: (keys, images) -> images, one key per image.

One key per image, not per batch, so that an image's transform does not depend on how
the batch is spread over devices.
"""

import jax
import jax.numpy as jnp

Array = jax.Array

MAX_SHIFT = 2  # pixels; MNIST leaves a margin of 4 around each digit
MAX_ROTATION = 10 * jnp.pi / 180  # radians
MAX_SCALING = 0.1  # relative
MAX_SHEAR = 0.1  # tangent of the angle


def none(keys: Array, images: Array) -> Array:
    """Leaves the images as they are."""
    return images


def shift(keys: Array, images: Array) -> Array:
    """Moves each image by up to `MAX_SHIFT` whole pixels each way; 0 moves in.

    Args:
      keys: PRNG keys [B].
      images: float32 [B, H, W, 1].

    Returns:
      float32 [B, H, W, 1].
    """

    def shift_one(key, image):
        start = jax.random.randint(key, (2,), 0, 2 * MAX_SHIFT + 1)
        padded = jnp.pad(image, ((MAX_SHIFT, MAX_SHIFT), (MAX_SHIFT, MAX_SHIFT)))
        return jax.lax.dynamic_slice(padded, start, image.shape)

    return jax.vmap(shift_one)(keys, images[..., 0])[..., None]


def affine(keys: Array, images: Array) -> Array:
    """Rotates, scales, shears and shifts each image at random, about its centre.

    Ranges are the module's constants, each uniform; bilinear, 0 outside the image.

    Args:
      keys: PRNG keys [B].
      images: float32 [B, H, W, 1].

    Returns:
      float32 [B, H, W, 1].
    """

    def affine_one(key, image):
        u = jax.random.uniform(key, (6,), minval=-1.0)
        angle = MAX_ROTATION * u[0]
        scale_y, scale_x = 1 + MAX_SCALING * u[1], 1 + MAX_SCALING * u[2]
        shear = MAX_SHEAR * u[3]
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        # From a place in the output to its place in the input.
        rotate = jnp.array([[cos, -sin], [sin, cos]])
        stretch = jnp.array([[scale_y, 0.0], [shear, scale_x]])
        centre = (jnp.array(image.shape) - 1) / 2
        place = jnp.indices(image.shape).reshape(2, -1) - centre[:, None]
        offset = centre + MAX_SHIFT * u[4:]
        source = rotate @ stretch @ place + offset[:, None]
        return _bilinear(image, *source).reshape(image.shape)

    return jax.vmap(affine_one)(keys, images[..., 0])[..., None]


def _bilinear(image: Array, y: Array, x: Array) -> Array:
    """Values of `image` [H, W] at real places y, x [N]; 0 outside. Returns [N]."""
    height, width = image.shape
    # A frame of zeros stands for all that lies outside.
    flat = jnp.pad(image, 1).ravel()
    y, x = jnp.clip(y, -1, height) + 1, jnp.clip(x, -1, width) + 1
    top = jnp.minimum(jnp.floor(y), height)
    left = jnp.minimum(jnp.floor(x), width)
    down, right = y - top, x - left
    index = (top * (width + 2) + left).astype(jnp.int32)
    below = index + width + 2
    upper = flat[index] * (1 - right) + flat[index + 1] * right
    lower = flat[below] * (1 - right) + flat[below + 1] * right
    return upper * (1 - down) + lower * down


# By the name that --augment takes.
AUGMENTATIONS = {
    "none": none,
    "shift": shift,
    "affine": affine,
}
