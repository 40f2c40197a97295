"""Models of dense layers alone."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mnist_jax.models.layers import Dense, drop, dropout, flatten
from mnist_jax.models.registry import register
from mnist_jax.settings import setting

Array = jax.Array


@register("linear")
class Linear(nn.Module):
    """Softmax regression: one matmul with all pixels."""

    num_classes: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: Array, keys: Array | None = None) -> Array:
        return Dense(self.num_classes, self.dtype)(flatten(images))


@register("mlp")
class MLP(nn.Module):
    """Dense layers with ReLU, each followed by dropout.

    With `layer_norm` what goes into a ReLU has mean 0 and variance 1 over the units of
    an image, times a gain and plus a bias of each unit (Ba et al., 2016).
    """

    num_classes: int
    dtype: jnp.dtype = jnp.float32
    hidden_sizes: tuple[int, ...] = setting(
        (512, 256), "units of the hidden layers", low=1, high=16_384
    )
    layer_norm: bool = setting(False, "normalise over the units of a hidden layer")
    dropout: float = dropout(0.2)

    @nn.compact
    def __call__(self, images: Array, keys: Array | None = None) -> Array:
        x = flatten(images)
        for i, size in enumerate(self.hidden_sizes):
            x = Dense(size, self.dtype)(x)
            x = nn.relu(nn.LayerNorm()(x) if self.layer_norm else x)
            x = drop(x, self.dropout, keys, i)
        return Dense(self.num_classes, self.dtype)(x)
