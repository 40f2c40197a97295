"""Models that read an image by recurrences in four directions."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mnist_jax.models.layers import Dense, drop, dropout, flatten
from mnist_jax.models.recurrent import RecurrentLayer, layers, units
from mnist_jax.models.registry import register

Array = jax.Array


class BothWays(nn.Module):
    """Two GRUs, from the start and from the end: as `RecurrentLayer`, 2 units wide."""

    units: int
    last_only: bool
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, sequence: Array) -> Array:
        outputs = [
            RecurrentLayer("gru", self.units, self.last_only, reverse, self.dtype)(
                sequence
            )
            for reverse in (False, True)
        ]
        return jnp.concatenate(outputs, axis=-1)


@register("fourway")
class FourWay(nn.Module):
    """GRUs down, up, right and left over the image; their last states to the logits.

    Rows are the time steps of the first two, columns of the others.
    """

    num_classes: int
    dtype: jnp.dtype = jnp.float32
    units: int = units(128)
    dropout: float = dropout(0.0)

    @nn.compact
    def __call__(self, images: Array, keys: Array | None = None) -> Array:
        pixels = images[..., 0]
        states = [
            BothWays(self.units, last_only=True, dtype=self.dtype)(
                pixels.transpose(axes)
            )
            for axes in ((1, 0, 2), (2, 0, 1))
        ]
        x = drop(jnp.concatenate(states, axis=-1), self.dropout, keys, 0)
        return Dense(self.num_classes, self.dtype)(x)


@register("renet")
class ReNet(nn.Module):
    """Recurrences in place of convolutions (Visin et al., "ReNet", 2015).

    Each layer halves the sides: it cuts its maps into patches of 2x2, reads each column
    of patches up and down and then, of what came out, each row left and right, so that
    every output has seen the whole image. The last maps go to the logits.
    """

    num_classes: int
    dtype: jnp.dtype = jnp.float32
    units: int = units(48)
    layers: int = layers(2)
    dropout: float = dropout(0.0)

    @nn.compact
    def __call__(self, images: Array, keys: Array | None = None) -> Array:
        x = images.transpose(1, 2, 0, 3)  # [rows, columns, B, features]
        for i in range(self.layers):
            x = _patches(x)
            for _ in ("columns", "rows"):
                steps, others, batch, _ = x.shape
                sequence = x.reshape(steps, others * batch, -1)
                x = BothWays(self.units, last_only=False, dtype=self.dtype)(sequence)
                x = x.reshape(steps, others, batch, -1).swapaxes(0, 1)
            x = drop(x, self.dropout, keys, i, axis=2)
        x = flatten(x.transpose(2, 0, 1, 3))
        return Dense(self.num_classes, self.dtype)(x)


def _patches(maps: Array) -> Array:
    """[H, W, B, F] -> [H // 2, W // 2, B, 4F]."""
    height, width = (size // 2 * 2 for size in maps.shape[:2])
    maps = maps[:height, :width]
    return jnp.concatenate([maps[y::2, x::2] for y in (0, 1) for x in (0, 1)], axis=-1)
