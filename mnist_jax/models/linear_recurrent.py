"""Models that read an image by linear recurrences."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mnist_jax.models.layers import Dense, drop, dropout
from mnist_jax.models.linear_cells import LRU, MAX_DECAY, DenseFirst, MinGRU, MinLSTM
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


class LinearRecurrent(nn.Module):
    """An image read as a sequence by blocks of norm, recurrence, gated mixing.

    Each block adds to its input: x + W y sigmoid(V y), where y is what the recurrence
    makes of the normalised input (a gated linear unit, Dauphin et al., 2017). Between
    blocks time can be pooled, which doubles the features (as in SaShiMi, Goel et al.,
    "It's Raw!", 2022), so that later blocks cost less and see further.

    Attributes:
      dtype: of the matmuls' operands.
      units: size of the first block's state.
      layers: blocks.
      bidirectional: whether each block also reads the sequence from its end.
      dropout: share of what each block adds that is dropped in training.
      sequence: as of `recurrent.Recurrent`.
      pool: time steps whose mean is one step of the next block; 1 for none. Once one
        step is left, nothing is pooled or doubled.
      readout: 'mean' over time, or the 'last' state; of both directions the last.
    """

    num_classes: int
    dtype: jnp.dtype = jnp.float32
    units: int = units(64)
    layers: int = layers(2)
    bidirectional: bool = bidirectional()
    dropout: float = dropout(0.0)
    sequence: str = sequence()
    pool: int = setting(
        1, "time steps averaged to one between layers, each time doubling the units",
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

        T is what pooling left of the time steps. With both directions each has seen
        the whole image.
        """
        self._check_width(self.units)
        if self.pool > 1 and self.layers == 1:
            raise ConfigError(
                f"--pool={self.pool}: time is pooled between layers, and --layers=1 "
                "has nothing between: give --layers=2 or more, or --pool=1"
            )
        x = as_sequence(images, self.sequence).transpose(2, 0, 1)
        x = DenseFirst(self.units, self.dtype)(x)
        directions = (False, True) if self.bidirectional else (False,)
        for i in range(self.layers):
            if i and self.pool > 1 and x.shape[1] > 1:
                self._check_width(2 * len(x))
                x = DenseFirst(2 * len(x), self.dtype)(_mean_of(x, self.pool))
            normed = _norm()(x)
            cells = [self.make_cell(way)(normed) for way in directions]
            mixed = DenseFirst(2 * len(x), self.dtype)(jnp.concatenate(cells))
            value, gate = jnp.split(mixed, 2)
            # One mask for all steps (Gal and Ghahramani, "A Theoretically Grounded
            # Application of Dropout in Recurrent Neural Networks", 2016).
            mask = drop(jnp.ones_like(x[:, :1]), self.dropout, keys, i, axis=2)
            x = x + mask * value * nn.sigmoid(gate)
        x = _norm()(x)
        if self.readout == "mean":
            count = jnp.arange(1, x.shape[1] + 1)[:, None]
            read = x.cumsum(1) / count if every_step else x.mean(1, keepdims=True)
        else:
            read = jnp.concatenate([x, x[:, ::-1]]) if self.bidirectional else x
            read = read if every_step else read[:, -1:]
        logits = Dense(self.num_classes, self.dtype)(read.transpose(1, 2, 0))
        return logits if every_step else logits[0]

    def make_cell(self, reverse: bool) -> nn.Module:
        """The recurrence of a block, [H, T, B] -> [H, T, B], from either end."""
        raise NotImplementedError

    def _check_width(self, width: int) -> None:
        if width < 2:
            raise ConfigError(
                f"--units={width}: expected 2 or more, as normalised over one unit all "
                "is the same"
            )
        if width > MOST_UNITS:
            raise ConfigError(
                f"--layers={self.layers} --pool={self.pool}: {width:,} units, twice as "
                f"many after each layer; expected {MOST_UNITS:,} at most: give fewer "
                "--layers or --units, or a larger --pool"
            )


def _norm() -> nn.Module:
    """Layer normalisation (Ba et al., 2016) over the first axis."""
    return nn.LayerNorm(reduction_axes=0, feature_axes=0)


def _mean_of(x: Array, steps: int) -> Array:
    """[H, T, B] -> [H, ceil(T / steps), B]; the last mean may be of fewer steps."""
    features, num_steps, batch = x.shape
    steps = min(steps, num_steps)
    padded = jnp.pad(x, ((0, 0), (0, -num_steps % steps), (0, 0)))
    sums = padded.reshape(features, -1, steps, batch).sum(2)
    starts = np.arange(0, num_steps, steps)
    counts = np.minimum(steps, num_steps - starts).astype(np.float32)
    return sums / counts[:, None]


@register("lru")
class LRUModel(LinearRecurrent):
    """See `linear_cells.LRU`, also for its ring of first decays."""

    min_decay: float = setting(
        0.5, "inner radius of the ring on which the decays per time step start",
        low=0, below=MAX_DECAY,
    )  # fmt: skip

    def make_cell(self, reverse: bool) -> nn.Module:
        return LRU(self.min_decay, reverse, self.dtype)


@register("mingru")
class MinGRUModel(LinearRecurrent):
    def make_cell(self, reverse: bool) -> nn.Module:
        return MinGRU(reverse, self.dtype)


@register("minlstm")
class MinLSTMModel(LinearRecurrent):
    def make_cell(self, reverse: bool) -> nn.Module:
        return MinLSTM(reverse, self.dtype)
