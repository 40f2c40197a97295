"""Models that read an image by linear recurrences."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mnist_jax.models.layers import Dense, drop, dropout
from mnist_jax.models.linear_cells import LRU, DenseFirst, MinGRU, MinLSTM
from mnist_jax.models.recurrent import (
    MOST_UNITS,
    as_sequence,
    bidirectional,
    layers,
    sequence,
    units,
)
from mnist_jax.models.registry import register
from mnist_jax.settings import ConfigError, setting

Array = jax.Array

_CELLS = {"lru": LRU, "mingru": MinGRU, "minlstm": MinLSTM}


class Norm(nn.Module):
    """Layer normalisation (Ba et al., 2016) over the first axis."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (len(x), *[1] * (x.ndim - 1))
        scale = self.param("scale", nn.initializers.ones, shape[:1]).reshape(shape)
        bias = self.param("bias", nn.initializers.zeros, shape[:1]).reshape(shape)
        # Both sums in one pass over the array.
        mean, square = x.mean(0), jnp.square(x).mean(0)
        variance = jnp.maximum(square - jnp.square(mean), 0)
        return (x - mean) * jax.lax.rsqrt(variance + 1e-6) * scale + bias


class LinearRecurrent(nn.Module):
    """An image read as a sequence by blocks of norm, recurrence, gated mixing.

    Each block adds to its input: x + W y sigmoid(V y), where y is what the recurrence
    makes of the normalised input (a gated linear unit, Dauphin et al., 2017). Between
    blocks time can be pooled, and features be doubled as it is (as in SaShiMi, Goel et
    al., "It's Raw!", 2022), so that later blocks cost less and see further.

    Attributes:
      cell: 'lru', 'mingru' or 'minlstm'.
      dtype: of the matmuls' operands.
      units: size of the first block's state.
      layers: blocks.
      bidirectional: whether each block also reads the sequence from its end.
      dropout: share of what each block adds that is dropped in training.
      sequence: as of `recurrent.Recurrent`.
      pool: time steps whose mean is one step of the next block.
      readout: 'mean' over time, or the 'last' state; of both directions the last.
    """

    num_classes: int
    cell: str
    dtype: jnp.dtype = jnp.float32
    units: int = units(64)
    layers: int = layers(2)
    bidirectional: bool = bidirectional()
    dropout: float = dropout(0.0)
    sequence: str = sequence()
    pool: int = setting(
        1, "time steps joined to one after each layer, with twice the units",
        low=1, high=1_000,
    )  # fmt: skip
    readout: str = setting(
        "mean", "what of all states goes to the logits", choices=("mean", "last")
    )

    @nn.compact
    def __call__(
        self, images: Array, keys: Array | None = None, every_step: bool = False
    ) -> Array:
        """Logits [B, K]; with `every_step` [T, B, K], after each of the last block's.

        A backward direction has then read as many steps, from the sequence's end.
        """
        x = as_sequence(images, self.sequence).transpose(2, 0, 1)
        x = DenseFirst(self.units, self.dtype)(x)
        directions = (False, True) if self.bidirectional else (False,)
        for i in range(self.layers):
            if i and self.pool > 1 and x.shape[1] > 1:
                self._check_width(2 * len(x))
                x = DenseFirst(2 * len(x), self.dtype)(_mean_of(x, self.pool))
            normed = Norm()(x)
            cells = [_CELLS[self.cell](way, self.dtype)(normed) for way in directions]
            mixed = DenseFirst(2 * len(x), self.dtype)(jnp.concatenate(cells))
            value, gate = jnp.split(mixed, 2)
            # One mask for all steps (Gal and Ghahramani, "A Theoretically Grounded
            # Application of Dropout in Recurrent Neural Networks", 2016).
            mask = drop(jnp.ones_like(x[:, :1]), self.dropout, keys, i, axis=2)
            x = x + mask * value * nn.sigmoid(gate)
        x = Norm()(x)
        if self.readout == "mean":
            count = jnp.arange(1, x.shape[1] + 1)[:, None]
            read = x.cumsum(1) / count if every_step else x.mean(1, keepdims=True)
        else:
            read = jnp.concatenate([x, x[:, ::-1]]) if self.bidirectional else x
            read = read if every_step else read[:, -1:]
        logits = Dense(self.num_classes, self.dtype)(read.transpose(1, 2, 0))
        return logits if every_step else logits[0]

    def _check_width(self, width: int) -> None:
        if width > MOST_UNITS:
            raise ConfigError(
                f"--layers={self.layers} --pool={self.pool}: {width:,} units, twice as "
                f"many after each layer; expected {MOST_UNITS:,} at most: give fewer "
                "--layers or --units, or a larger --pool"
            )


def _mean_of(x: Array, steps: int) -> Array:
    """[H, T, B] -> [H, ceil(T / steps), B]; after the last step there are zeros."""
    features, num_steps, batch = x.shape
    x = jnp.pad(x, ((0, 0), (0, -num_steps % steps), (0, 0)))
    return x.reshape(features, -1, steps, batch).mean(2)


@register("lru")
class LRUModel(LinearRecurrent):
    cell: str = "lru"


@register("mingru")
class MinGRUModel(LinearRecurrent):
    cell: str = "mingru"


@register("minlstm")
class MinLSTMModel(LinearRecurrent):
    cell: str = "minlstm"
