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
    """Dense layers with ReLU, each followed by dropout."""

    num_classes: int
    dtype: jnp.dtype = jnp.float32
    hidden_sizes: tuple[int, ...] = setting(
        (512, 256), "units of the hidden layers", low=1, high=16_384
    )
    dropout: float = dropout(0.2)

    @nn.compact
    def __call__(self, images: Array, keys: Array | None = None) -> Array:
        x = flatten(images)
        for i, size in enumerate(self.hidden_sizes):
            x = nn.relu(Dense(size, self.dtype)(x))
            x = drop(x, self.dropout, keys, i)
        return Dense(self.num_classes, self.dtype)(x)
