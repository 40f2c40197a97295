"""Convolutional models. Inside, images lie innermost: [rows, columns, channels, B]."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mnist_jax.models.layers import BatchNorm, Dense, drop, dropout, flatten
from mnist_jax.models.registry import register
from mnist_jax.ops.convolution import (
    conv_mean,
    conv_pool,
    conv_pool_relu,
    convolve,
    relu,
)
from mnist_jax.settings import setting

Array = jax.Array


class ConvPool(nn.Module):
    """3x3 convolution without padding, 2x2 max-pool, bias or `BatchNorm`, ReLU.

    [H, W, C, B] -> [(H - 2) // 2, (W - 2) // 2, features, B].
    """

    features: int
    dtype: jnp.dtype = jnp.float32
    batch_norm: bool = False

    @nn.compact
    def __call__(self, images: Array, is_training: bool = False) -> Array:
        shape = (3, 3, images.shape[2], self.features)
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), shape)
        if self.batch_norm:
            x = conv_pool(images, kernel, self.dtype)
            return relu(BatchNorm()(x, is_training))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return conv_pool_relu(images, kernel, bias, self.dtype)


class ConvMean(nn.Module):
    """5x5 convolution without padding, mean of 2x2, bias, tanh.

    [H, W, C, B] -> [(H-4)//2, (W-4)//2, features, B].
    """

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: Array) -> Array:
        shape = (5, 5, images.shape[2], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return nn.tanh(conv_mean(images, kernel, self.dtype) + bias[:, None])


@register("lenet5")
class LeNet5(nn.Module):
    """LeNet-5 (LeCun et al., 1998) as it is built today: 61,706 parameters.

    All maps feed all maps, the means have no weights of their own, and the last layer
    is linear; the original had a table of connections, trained means and distances.
    """

    num_classes: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: Array, keys: Array | None = None) -> Array:
        x = jnp.pad(images.transpose(1, 2, 3, 0), ((2, 2), (2, 2), (0, 0), (0, 0)))
        x = ConvMean(6, self.dtype)(x)  # [14, 14, 6, B]
        x = ConvMean(16, self.dtype)(x)  # [5, 5, 16, B]
        x = flatten(x.transpose(3, 0, 1, 2))
        for units in (120, 84):
            x = nn.tanh(Dense(units, self.dtype)(x))
        return Dense(self.num_classes, self.dtype)(x)


class Residual(nn.Module):
    """x + g f(x), ReLU, where f is two 3x3 convolutions with a ReLU between them.

    g starts at zero, so that the block starts as the identity and needs no
    normalisation (De and Smith, "Batch Normalization Biases Residual Blocks Towards
    the Identity Function in Deep Networks", 2020); it may have `BatchNorm` after each
    convolution. Shapes stay, [H, W, C, B].
    """

    dtype: jnp.dtype = jnp.float32
    batch_norm: bool = False

    @nn.compact
    def __call__(self, x: Array, is_training: bool = False) -> Array:
        channels = x.shape[2]
        branch = x
        for i in range(2):
            kernel = self.param(
                f"kernel_{i}", nn.initializers.he_normal(), (3, 3, channels, channels)
            )
            branch = relu(branch) if i else branch
            branch = jnp.pad(branch, ((1, 1), (1, 1), (0, 0), (0, 0)))
            branch = convolve(branch, kernel, self.dtype)
            if self.batch_norm:
                branch = BatchNorm()(branch, is_training)
            else:
                bias = self.param(f"bias_{i}", nn.initializers.zeros, (channels,))
                branch = branch + bias[:, None]
        gain = self.param("gain", nn.initializers.zeros, ())
        return relu(x + gain * branch)


def _features() -> Any:
    return setting(
        (32, 64), "maps of each stage, which halves the sides", low=1, high=4_096
    )


def _blocks(default: int) -> Any:
    return setting(default, "residual blocks of each stage", low=0, high=100)


def _batch_norm() -> Any:
    return setting(
        False, "batch normalisation, over up to 64 images of a device's at a time"
    )


def _stages(
    x: Array,
    features: Sequence[int],
    blocks: int,
    dtype: jnp.dtype,
    batch_norm: bool,
    is_training: bool,
) -> Array:
    """Of each stage the convolution with pooling, and its residual blocks.

    Called in a compact method: the layers are the caller's. [H, W, 1, B] to the maps of
    the last stage.
    """
    for maps in features:
        x = ConvPool(maps, dtype, batch_norm)(x, is_training)
        for _ in range(blocks):
            x = Residual(dtype, batch_norm)(x, is_training)
    return x


@register("cnn")
class CNN(nn.Module):
    """The simple MNIST convnet of the Keras examples: 34,826 parameters by default.

    https://keras.io/examples/vision/mnist_convnet/. With residual blocks it is a deeper
    one, whose last maps go to the logits as they are.
    """

    num_classes: int
    dtype: jnp.dtype = jnp.float32
    features: tuple[int, ...] = _features()
    blocks: int = _blocks(0)
    batch_norm: bool = _batch_norm()
    dropout: float = dropout(0.5)

    @nn.compact
    def __call__(self, images: Array, keys: Array | None = None) -> Array:
        shape = self.features, self.blocks, self.dtype, self.batch_norm
        x = _stages(images.transpose(1, 2, 3, 0), *shape, keys is not None)
        x = drop(flatten(x.transpose(3, 0, 1, 2)), self.dropout, keys, 0)
        return Dense(self.num_classes, self.dtype)(x)


@register("resnet")
class ResNet(nn.Module):
    """A small residual network (He et al., 2016): 111,820 parameters by default.

    The means of the last maps go to the logits.
    """

    num_classes: int
    dtype: jnp.dtype = jnp.float32
    features: tuple[int, ...] = _features()
    blocks: int = _blocks(1)
    batch_norm: bool = _batch_norm()
    dropout: float = dropout(0.0)

    @nn.compact
    def __call__(self, images: Array, keys: Array | None = None) -> Array:
        shape = self.features, self.blocks, self.dtype, self.batch_norm
        x = _stages(images.transpose(1, 2, 3, 0), *shape, keys is not None)
        x = drop(x.mean((0, 1)).T, self.dropout, keys, 0)
        return Dense(self.num_classes, self.dtype)(x)
