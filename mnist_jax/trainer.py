"""The driver of compiled chunks: whatever trains, trains by it."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mnist_jax import signals
from mnist_jax.parallel import feed, placement, programs
from mnist_jax.train_step import TrainState, init_history

CHUNK_SECONDS = 1.0  # of training between two looks at signals, clock and bar
_FIRST_CHUNK = 8  # steps, to learn how long one takes


class Trainer:
    """Places a run on its devices, compiles its training and runs it chunk by chunk.

    It trains one run, each device with its shard of every batch; or, given
    `num_members`, vectorized runs: so many independent ones, each on one device, whose
    arrays have a first axis [M].

    Attributes:
      state: TrainState on the devices.
      history: metrics of the epoch in progress, float32 [S] by name, on the devices.
      images: the data set on the devices; None where it stays on the host.
      devices: where it runs.
      num_steps: S, in an epoch.
      chunk_steps: about `CHUNK_SECONDS` of steps, as the last chunk went.
    """

    def __init__(
        self,
        make_step: programs.MakeStep,
        state: TrainState,
        hparams: Mapping[str, Any],
        images: np.ndarray,
        labels: np.ndarray,
        order: Callable[[int], np.ndarray],
        num_steps: int,
        devices: Sequence[jax.Device],
        num_members: int | None = None,
        group_size: int = 1,
        host_images: bool = False,
    ):
        """Places the arrays; compiles at the first `run`.

        Args:
          make_step: hyperparameters -> train step; see `programs`.
          state: before the first step, on the host; [M, ..] for members.
          hparams: traced arguments, arrays and trees of them; 'seed' uint32 [] at
            least, [M] for members.
          images: uint8 [N, H, W, 1], the whole data set.
          labels: int32 [N].
          order: epoch -> indices of its batches, int32 [S, B], [M, S, B] for members.
          num_steps: S.
          devices: where to run.
          num_members: M; None for one run.
          group_size: see `programs.make_vectorized_chunk`.
          host_images: whether the images stay in the host's memory, and are sent to the
            devices as they are needed; of one run alone.
        """
        self.devices, self.num_steps = list(devices), num_steps
        self.chunk_steps = _FIRST_CHUNK
        self._num_members, self._order_of = num_members, order
        self._feed, self.images, self._labels = None, None, None
        if num_members is None:
            self._chunk = programs.make_train_chunk(
                make_step, self.devices, host_images
            )
        else:
            self._chunk = programs.make_vectorized_chunk(
                make_step, self.devices, group_size
            )
        self._hparams = self._place(dict(hparams))
        if host_images:
            self._feed = feed.Feed(
                images, labels, self._local_order, num_steps, self.devices
            )
        else:
            arrays = placement.replicate((images, labels), self.devices)
            self.images, self._labels = arrays
        self.set_state(state)
        self._epoch = self._order = None

    def set_state(
        self, state: TrainState, history: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Goes on from a state on the host, and the metrics of its epoch so far."""
        self.state = self._place(state)
        self._set_history(history)

    def start_epoch(self, epoch: int) -> None:
        """Orders the images of that epoch, 0 for the first, for the next chunks."""
        self._epoch = epoch
        if self._feed is not None:
            self._order = self._feed.order
        elif self._num_members is None:
            self._order = self._local_order(epoch)
        else:
            self._order = self._place(self._order_of(epoch))

    def compile(self) -> float:
        """Compiles by running no step; returns the seconds it took."""
        return signals.interruptible(lambda: self.run(0, 0))

    def run(self, first: int, last: int) -> float:
        """Trains steps `first` to `last` of the epoch; returns the seconds it took."""
        began = time.perf_counter()
        for arguments in self._arguments(first, last):
            self.state, self.history = self._chunk(self.state, self.history, *arguments)
            jax.block_until_ready(self.history)
        seconds = time.perf_counter() - began
        if last > first:
            steps = round(CHUNK_SECONDS * (last - first) / seconds)
            self.chunk_steps = max(1, steps)
        return seconds

    def temporary_bytes(self) -> int:
        """What the compiled program needs on each device besides its arguments."""
        arguments = next(iter(self._arguments(0, 0)))
        compiled = self._chunk.lower(self.state, self.history, *arguments).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    def run_epoch(self, epoch: int) -> dict[str, np.ndarray]:
        """Trains a whole epoch; returns its metrics, float32 [S] or [M, S] by name."""
        is_new = self._order is None
        self.start_epoch(epoch)
        if is_new:
            self.compile()  # so that the first chunk tells how long a step takes
        if self._num_members is not None:
            self._set_history(None)
        done = 0
        while done < self.num_steps:
            last = min(self.num_steps, done + self.chunk_steps)
            self.run(done, last)
            done = last
        return self.metrics()

    def metrics(self) -> dict[str, np.ndarray]:
        """The history on the host: float32 [S] by name, [M, S] for members."""
        return self._fetch(self.history)

    def fetch_state(self) -> TrainState:
        """The state on the host, as `set_state` takes it."""
        return self._fetch(self.state)

    def _arguments(self, first: int, last: int) -> Iterator[tuple[Any, ...]]:
        """What the chunks of these steps are given besides state and history."""
        if self._order is None:
            self.start_epoch(0)
        blocks: Iterable[feed.Block]
        if self._feed is None:
            blocks = [feed.Block(self.images, self._labels, first, last)]
        else:
            blocks = self._feed.blocks(self._epoch, first, last)
        for images, labels, start, stop in blocks:
            yield self._hparams, images, labels, self._order, start, stop

    def _local_order(self, epoch: int) -> np.ndarray:
        """Of the one run, for this process's devices: int32 [d, S, B / D]."""
        shards = placement.shard_order(self._order_of(epoch), len(self.devices))
        return placement.local_shard(shards, self.devices)

    def _set_history(self, history: Mapping[str, np.ndarray] | None) -> None:
        if history is None:
            history = init_history(self.num_steps)
            if self._num_members is not None:
                history = jax.tree.map(
                    lambda x: np.stack([x] * self._num_members), history
                )
        self.history = self._place(dict(history))

    def _place(self, tree: Any) -> Any:
        if self._num_members is None:
            return placement.replicate(tree, self.devices)
        members = placement.shard_members(tree, len(self.devices))
        return placement.distribute(members, self.devices)

    def _fetch(self, tree: Any) -> Any:
        if self._num_members is None:
            return jax.device_get(tree)
        return placement.gather_members(tree, self._num_members)
