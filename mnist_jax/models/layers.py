"""Layers and small functions that several models use."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mnist_jax.ops.dense import dense
from mnist_jax.ops.random_bits import random_bits
from mnist_jax.settings import setting

Array = jax.Array


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


def lecun_rows(key: Array, shape: tuple[int, int], dtype=jnp.float32) -> Array:
    """`lecun_normal` of a kernel [units, inputs]."""
    return nn.initializers.lecun_normal()(key, shape[::-1], dtype).T
