"""Models of dense layers alone."""

import flax.linen as nn
import jax

from mnist_jax.models.layers import NUM_CLASSES, Dense, drop, flatten

Array = jax.Array


class Linear(nn.Module):
    """Softmax regression: one product with all pixels."""

    @nn.compact
    def __call__(self, images: Array, keys: Array | None = None) -> Array:
        return Dense(NUM_CLASSES)(flatten(images))


class MLP(nn.Module):
    """Dense layers with ReLU, each followed by dropout."""

    hidden_sizes: tuple[int, ...] = (512, 256)
    dropout: float = 0.2

    @nn.compact
    def __call__(self, images: Array, keys: Array | None = None) -> Array:
        x = flatten(images)
        for i, size in enumerate(self.hidden_sizes):
            x = nn.relu(Dense(size)(x))
            x = drop(x, self.dropout, keys, i)
        return Dense(NUM_CLASSES)(x)
