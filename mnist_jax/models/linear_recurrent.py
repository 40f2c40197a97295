"""Models that read an image by linear recurrences."""

from typing import NamedTuple

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
    remat_steps,
    sequence,
    units,
)
from mnist_jax.models.registry import register
from mnist_jax.ops.linear_recurrence import Number
from mnist_jax.settings import ConfigError, setting

Array = jax.Array
Carries = tuple[Number, ...]  # of each direction


class _Block(NamedTuple):
    """What tells the blocks of a model apart."""

    number: int
    width: int
    num_steps: int
    is_wider: bool  # than what it reads, so that it begins with a dense layer
    first_dense: int  # number of that, or of its other one
    is_pooled: bool  # at its end


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
      remat_steps: time steps that a block reads at a time, where it pools rounded up to
        a multiple of `pool`. The backward pass computes them again from what they read
        and the carry before them, so that all that is between stays in the cache (Chen
        et al., 2016). 0, or more than half of those that the block reads: all at once,
        and what is between is kept. Not with `bidirectional`.
    """

    num_classes: int
    dtype: jnp.dtype = jnp.float32
    units: int = units(64)
    layers: int = layers(2)
    bidirectional: bool = bidirectional()
    dropout: float = dropout(0.0)
    sequence: str = sequence()
    pool: int = setting(
        1, "time steps averaged to one between layers; each time the units double",
        low=1, high=1_000,
    )  # fmt: skip
    readout: str = setting(
        "mean", "what of all states goes to the logits", choices=("mean", "last")
    )
    remat_steps: int = remat_steps()

    cell = None  # of `linear_cells`

    @nn.compact
    def __call__(
        self, images: Array, keys: Array | None = None, every_step: bool = False
    ) -> Array:
        """Logits [B, K]; with `every_step` [T, B, K], after each of the last block's.

        T is what pooling left of the time steps. With both directions each has seen
        the whole image.
        """
        if self.pool > 1 and self.layers == 1:
            raise ConfigError(
                f"--pool={self.pool}: time is pooled between layers, and --layers=1 "
                "has nothing between: give --layers=2 or more, or --pool=1"
            )
        x = as_sequence(images, self.sequence).transpose(2, 0, 1)
        width, num_dense, is_wider = self.units, 0, True
        for i in range(self.layers):
            self._check_width(width)
            is_pooled = self.pool > 1 and x.shape[1] > 1 and i + 1 < self.layers
            block = _Block(i, width, x.shape[1], is_wider, num_dense, is_pooled)
            # One mask for all steps (Gal and Ghahramani, "A Theoretically Grounded
            # Application of Dropout in Recurrent Neural Networks", 2016).
            ones = jnp.ones((width, 1, x.shape[2]))
            mask = drop(ones, self.dropout, keys, i, axis=2)
            x = self._read_all(block, mask, x)
            num_dense += 1 + is_wider
            is_wider = is_pooled
            width *= 1 + is_wider
        x = _norm(self.layers)(x)
        if self.readout == "mean":
            count = jnp.arange(1, x.shape[1] + 1)[:, None]
            read = x.cumsum(1) / count if every_step else x.mean(1, keepdims=True)
        else:
            read = jnp.concatenate([x, x[:, ::-1]]) if self.bidirectional else x
            read = read if every_step else read[:, -1:]
        logits = Dense(self.num_classes, self.dtype)(read.transpose(1, 2, 0))
        return logits if every_step else logits[0]

    def make_cell(self, num_steps: int, reverse: bool, name: str) -> nn.Module:
        """The recurrence of a block that reads so many steps, from either end."""
        return self.cell(num_steps, reverse, self.dtype, name=name)

    def _read_all(self, block: _Block, mask: Array, x: Array) -> Array:
        """What a block makes of [F, T, B]: [H, T, B], or fewer steps if it pools."""

        def read(self, carries, x):
            return self._read(block, mask, carries, x)

        features, num_steps, batch = x.shape
        carry = (jnp.zeros((block.width, 1, batch)),) * self.cell.num_states
        carries = (carry,) * (1 + self.bidirectional)
        steps = self.remat_steps
        if block.is_pooled:  # by no mean over steps of two segments
            steps = -(-steps // self.pool) * self.pool
        if not 0 < steps <= num_steps // 2:
            return read(self, carries, x)[1]
        if self.bidirectional:
            raise ConfigError(
                f"--remat_steps={self.remat_steps} --bidirectional: expected one of "
                "them, as the mixing of both directions needs the states of all steps"
            )
        read = nn.remat(read, prevent_cse=False)
        read_each = nn.scan(
            read,
            variable_broadcast="params",
            split_rngs={"params": False},
            in_axes=1,
            out_axes=1,
        )
        whole = num_steps // steps * steps
        segments = x[:, :whole].reshape(features, -1, steps, batch)
        carries, outputs = read_each(self, carries, segments)
        outputs = outputs.reshape(block.width, -1, batch)
        if whole == num_steps:
            return outputs
        _, rest = read(self, carries, x[:, whole:])
        return jnp.concatenate([outputs, rest], axis=1)

    def _read(
        self, block: _Block, mask: Array, carries: Carries, x: Array
    ) -> tuple[Carries, Array]:
        """`_read_all` of some steps, from the carries before them to those after."""

        # Names are given, as the last, shorter part of the steps has the same params.
        def dense(x, units, number):
            name = f"DenseFirst_{block.first_dense + number}"
            return DenseFirst(units, self.dtype, name=name)(x)

        if block.is_wider:
            x = dense(x, block.width, 0)
        normed = _norm(block.number)(x)
        read = []
        for i, carry in enumerate(carries):
            name = f"{self.cell.__name__}_{len(carries) * block.number + i}"
            cell = self.make_cell(block.num_steps, i == 1, name)
            read.append(cell(carry, normed))
        carries, outputs = zip(*read, strict=True)
        mixed = dense(jnp.concatenate(outputs), 2 * block.width, block.is_wider)
        value, gate = jnp.split(mixed, 2)
        x = x + mask * value * nn.sigmoid(gate)
        return carries, _mean_of(x, self.pool) if block.is_pooled else x

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


def _norm(number: int) -> nn.Module:
    """Layer normalisation (Ba et al., 2016) over the first axis."""
    name = f"LayerNorm_{number}"
    return nn.LayerNorm(reduction_axes=0, feature_axes=0, name=name)


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

    cell = LRU
    min_decay: float = setting(
        0.5, "inner radius of the ring on which the decays per time step start",
        low=0, below=MAX_DECAY,
    )  # fmt: skip

    def make_cell(self, num_steps: int, reverse: bool, name: str) -> nn.Module:
        return LRU(self.min_decay, reverse, self.dtype, name=name)


@register("mingru")
class MinGRUModel(LinearRecurrent):
    cell = MinGRU


@register("minlstm")
class MinLSTMModel(LinearRecurrent):
    cell = MinLSTM
