"""Image transforms on the device: (keys, images) -> images, one key per image.

One key per image, not per batch, so that an image's transform does not depend on how
the batch is spread over devices.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mnist_jax.ops.platform import fusion_barrier
from mnist_jax.ops.random_bits import nearly_normal

Array = jax.Array
Augmentation = Callable[[Array, Array], Array]

MAX_SHIFT = 2  # pixels; MNIST leaves a margin of 4 around each digit
# Of affine and elastic, for a strength of 1.
MAX_ROTATION = 10 * np.pi / 180  # radians
MAX_SCALING = 0.1  # relative
MAX_SHEAR = 0.1  # tangent of the angle
# Standard deviation of the Gaussian that makes a field smooth, of the image's side: 4
# pixels of 28, as Simard et al. have it.
_SMOOTHNESS = 1 / 7


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

    shape, places = images.shape[1:3], range(2 * MAX_SHIFT + 1)
    starts = jax.vmap(lambda key: jax.random.randint(key, (2,), 0, len(places)))(keys)
    around = [(MAX_SHIFT, MAX_SHIFT)] * 2
    padded = jnp.pad(images[..., 0], [(0, 0), *around])

    def on_cpu(starts, padded):
        cut = functools.partial(jax.lax.dynamic_slice, slice_sizes=shape)
        return jax.vmap(cut)(padded, starts)

    def elsewhere(starts, padded):
        # A TPU would cut out one image after the other.
        for axis in (1, 2):
            start = starts[:, axis - 1, None, None]
            shifted = 0.0
            for place in places:
                part = jax.lax.slice_in_dim(
                    padded, place, place + shape[axis - 1], axis=axis
                )
                shifted = jnp.where(start == place, part, shifted)
            padded = shifted
        return padded

    moved = jax.lax.platform_dependent(starts, padded, cpu=on_cpu, default=elsewhere)
    return moved[..., None]


def affine(
    keys: Array,
    images: Array,
    strength: float = 1.0,
    max_shift: float = MAX_SHIFT,
    nearest: float = 0.0,
) -> Array:
    """Rotates, scales, shears and shifts each image at random, about its centre.

    Ranges are the module's constants, each uniform; 0 outside the image. Bilinear
    values blur, so that what is trained on them alone has never seen strokes as sharp
    as those it is to classify: a share of the images can have the nearest pixels.

    Args:
      keys: PRNG keys [B].
      images: float32 [B, H, W, 1], multiples of 1 / 255 from 0 to 1.
      strength: factor on the ranges of rotation, scale and shear.
      max_shift: in pixels.
      nearest: probability that an image is read at the nearest pixels, from 0 to 1.

    Returns:
      float32 [B, H, W, 1].
    """
    y, x = _affine_coordinates(keys, images.shape[1:3], strength, max_shift)
    return _resample(images, *_some_nearest(keys, y, x, nearest))


def elastic(
    keys: Array,
    images: Array,
    strength: float = 1.0,
    max_shift: float = MAX_SHIFT,
    pixels: float = 1.0,
    nearest: float = 0.0,
) -> Array:
    """`affine` and a random smooth field of displacements, in one resampling.

    The field is white noise under a Gaussian (Simard et al., "Best Practices for
    Convolutional Neural Networks", 2003), on a lattice as fine as the Gaussian is wide:
    two small matmuls, so that each image of each step has a field of its own.

    Args:
      keys, images, strength, max_shift, nearest: as of `affine`.
      pixels: root mean square of the displacements along each axis, in pixels of an
        image of 28 rows.

    Returns:
      float32 [B, H, W, 1].
    """
    shape = images.shape[1:3]
    field_keys = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
    fields = pixels / 28 * _smooth_fields(field_keys, shape)
    y, x = _affine_coordinates(keys, shape, strength, max_shift)
    y, x = y + shape[0] * fields[:, 0], x + shape[1] * fields[:, 1]
    return _resample(images, *_some_nearest(keys, y, x, nearest))


def _affine_coordinates(
    keys: Array, shape: tuple[int, int], strength: float, max_shift: float
) -> tuple[Array, Array]:
    """Where each pixel of the output is in the input: y and x, float32 [B, H, W]."""
    u = jax.vmap(lambda key: jax.random.uniform(key, (6,), minval=-1.0))(keys)
    u = u[..., None, None]
    angle = strength * MAX_ROTATION * u[:, 0]
    scale_y = 1 + strength * MAX_SCALING * u[:, 1]
    scale_x = 1 + strength * MAX_SCALING * u[:, 2]
    shear = strength * MAX_SHEAR * u[:, 3]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    y, x = (jnp.arange(size) - (size - 1) / 2 for size in shape)
    y, x = scale_y * y[:, None], shear * y[:, None] + scale_x * x
    offset_y, offset_x = (
        (size - 1) / 2 + max_shift * u[:, 4 + axis] for axis, size in enumerate(shape)
    )
    return cos * y - sin * x + offset_y, sin * y + cos * x + offset_x


def _some_nearest(
    keys: Array, y: Array, x: Array, probability: float
) -> tuple[Array, Array]:
    """Coordinates [B, H, W], rounded for as many of the images as that."""
    if not probability:
        return y, x
    drawn = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 2)))(keys)
    nearest = (drawn < probability)[:, None, None]
    return jnp.where(nearest, jnp.round(y), y), jnp.where(nearest, jnp.round(x), x)


def _smooth_fields(keys: Array, shape: tuple[int, int]) -> Array:
    """Random fields for y and x, float32 [B, 2, H, W]; mean 0, variance 1."""
    rows, columns = (_gaussians(size) for size in shape)
    lattice = (2, rows.shape[1], columns.shape[1])
    noise = nearly_normal(keys, np.prod(lattice)).reshape(-1, *lattice)
    by_row = jnp.einsum("hk,bakl->bahl", rows, noise)
    by_row = fusion_barrier(lambda x: x, by_row)
    return jnp.einsum("bahl,wl->bahw", by_row, columns)


def _gaussians(size: int) -> np.ndarray:
    """Gaussians around lattice points at pixels: float32 [size, points]; rows have
    norm 1, so that what white noise makes of them has variance 1."""
    width = _SMOOTHNESS * size
    points = np.arange(-width / 2, size + width, width)
    basis = np.exp(-((np.arange(size)[:, None] - points) ** 2) / (2 * width**2))
    return (basis / np.linalg.norm(basis, axis=1, keepdims=True)).astype(np.float32)


def _resample(images: Array, y: Array, x: Array) -> Array:
    """Bilinear values of images [B, H, W, 1] at y, x, float32 [B, H, W]; 0 outside.

    Of each point the four pixels around it are read at once, as the bytes of one word.
    """
    batch, height, width, _ = images.shape

    def within(y, x):
        return jnp.clip(y, -1, height) + 1, jnp.clip(x, -1, width) + 1

    # Else the coordinates are computed once for each of their uses.
    y, x = fusion_barrier(within, y, x)
    pixels = jnp.round(images[..., 0] * 255).astype(jnp.uint32)
    pixels = jnp.pad(pixels, ((0, 0), (1, 1), (1, 1)))  # zeros for all that is outside
    words = (
        pixels[:, :-1, :-1]
        | pixels[:, :-1, 1:] << 8
        | pixels[:, 1:, :-1] << 16
        | pixels[:, 1:, 1:] << 24
    )
    top, left = jnp.minimum(jnp.floor(y), height), jnp.minimum(jnp.floor(x), width)
    index = (top * (width + 1) + left).astype(jnp.int32)
    first = jnp.arange(batch, dtype=jnp.int32) * (height + 1) * (width + 1)
    index = first[:, None, None] + index
    found = words.ravel().at[index].get(mode="promise_in_bounds")
    a, b, c, d = ((found >> 8 * i & 255).astype(jnp.float32) for i in range(4))
    down, right = y - top, x - left
    upper, lower = a * (1 - right) + b * right, c * (1 - right) + d * right
    return ((upper * (1 - down) + lower * down) / 255)[..., None]


# By the name that --augment takes.
AUGMENTATIONS: dict[str, Augmentation] = {
    "none": none,
    "shift": shift,
    "affine": affine,
    "elastic": elastic,
}


def make_augmentation(
    name: str,
    affine_strength: float = 1.0,
    affine_shift: float = MAX_SHIFT,
    elastic_pixels: float = 1.0,
    nearest_fraction: float = 0.0,
) -> Augmentation:
    """The augmentation of that name, with the settings of those that have them."""
    of_affine = dict(
        strength=affine_strength, max_shift=affine_shift, nearest=nearest_fraction
    )
    settings = {
        "affine": of_affine,
        "elastic": dict(of_affine, pixels=elastic_pixels),
    }
    return functools.partial(AUGMENTATIONS[name], **settings.get(name, {}))
