"""Layers and small functions that several models use."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mnist_jax.moving_averages import STATISTICS
from mnist_jax.ops.dense import dense
from mnist_jax.ops.normalization import batch_norm, scale_and_shift
from mnist_jax.ops.random_bits import random_bits
from mnist_jax.settings import setting

Array = jax.Array

IMAGES_PER_NORM = 64  # the most whose mean and variance `BatchNorm` takes


class BatchNorm(nn.Module):
    """Channels of mean 0 and variance 1, times a gain, plus a bias of each channel.

    [H, W, C, B] -> [H, W, C, B] (Ioffe and Szegedy, 2015). In training mean and
    variance are those of 64 images at a time (Hoffer et al., "Train longer, generalize
    better", 2017), so that they do not depend on how a batch is spread over devices, if
    each has a multiple of 64 images; of another batch those of its largest equal parts
    of no more. Else they are the moving averages of these. The averages are params,
    which the train step moves and no optimizer: so they are averaged, saved and
    exported with the kernels they belong to.
    """

    @nn.compact
    def __call__(self, x: Array, is_training: bool) -> Array:
        channels, batch = x.shape[2:]
        zeros, ones = nn.initializers.zeros, nn.initializers.ones
        gain = self.param("gain", ones, (channels,))
        bias = self.param("bias", zeros, (channels,))
        mean = self.param("mean", zeros, (channels,))
        variance = self.param("variance", ones, (channels,))
        if not is_training:
            return scale_and_shift(x, gain, bias, mean, variance)
        num_groups = batch // largest_divisor(batch, IMAGES_PER_NORM)
        x, mean, variance = batch_norm(x, gain, bias, num_groups)
        for name, value in {"mean": mean, "variance": variance}.items():
            self.sow(STATISTICS, name, value.mean(1), lambda _, new: new, tuple)
        return x


class Dense(nn.Module):
    """x W^T + b, [.., inputs] -> [.., units], with one row of W for each unit.

    `nn.Dense` has W the other way round, and with it XLA's CPU matmuls take two to
    three times as long where the units are few. First values are those of `nn.Dense`.
    """

    units: int
    dtype: jnp.dtype = jnp.float32  # of the matmul's operands

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.units, x.shape[-1])
        kernel = self.param("kernel", lecun_rows, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.units,))
        return dense(x, kernel, self.dtype) + bias


def drop(
    x: Array, rate: float | Array, keys: Array | None, layer: int, axis: int = 0
) -> Array:
    """Dropout (Srivastava et al., 2014) whose masks are drawn image by image.

    Flax's own draws one mask for the whole batch, which then depends on how the
    batch is spread over devices.

    Args:
      x: float32, with the images on `axis`.
      rate: share of the values set to 0; the others are scaled by 1 / (1 - rate).
        float32 [] where it is a traced argument.
      keys: PRNG keys [B], or None to drop nothing.
      layer: its number, so that layers have different masks.
      axis: where the images are.

    Returns:
      float32, the shape of `x`.
    """
    if keys is None or (isinstance(rate, float | int) and rate == 0):
        return x
    layer_keys = jax.vmap(lambda key: jax.random.fold_in(key, layer))(keys)
    bits = random_bits(layer_keys, x.size // len(keys))
    shape = (len(keys), *x.shape[:axis], *x.shape[axis + 1 :])
    bits = jnp.moveaxis(bits.reshape(shape), 0, axis)
    dropped = jnp.round(jnp.float32(rate) * 2.0**32).astype(jnp.uint32)
    return jnp.where(bits >= dropped, x / (1 - rate), 0.0)


def dropout(default: float) -> Any:
    """The setting of models that drop units."""
    return setting(default, "share of units dropped in training", low=0, below=1)


def flatten(images: Array) -> Array:
    """[B, ..] -> [B, all the rest]."""
    return images.reshape(images.shape[0], -1)


def largest_divisor(number: int, most: int) -> int:
    """Of `number`, at most `most`; 1 if that is less."""
    return max(n for n in range(1, number + 1) if number % n == 0 and n <= max(1, most))


def lecun_rows(key: Array, shape: tuple[int, int], dtype=jnp.float32) -> Array:
    """`lecun_normal` of a kernel [units, inputs]."""
    return nn.initializers.lecun_normal()(key, shape[::-1], dtype).T
