"""Images that stay in the host's memory and are sent to the devices in time."""

import concurrent.futures
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from mnist_jax.parallel import placement

BLOCK_BYTES = 2**25  # of images, on all devices of this process together


class Block(NamedTuple):
    """What the devices need for some steps, and which of an epoch's steps these are."""

    images: jax.Array | np.ndarray  # uint8 [d, C * b, H, W, 1]
    labels: jax.Array | np.ndarray  # int32 [d, C * b]
    start: int
    stop: int


class Feed:
    """The images of an epoch in the order in which its steps take them.

    They are sent in blocks of C steps. While the devices train on one, a thread gathers
    the next, so that they hold a few at most, however large the data set is. Of several
    processes each gathers what its own devices take.

    Attributes:
      order: int32 [d, S, b], where in its block each step finds its images, on the d
        devices of this process.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        order: Callable[[int], np.ndarray],
        num_steps: int,
        devices: Sequence[jax.Device],
    ):
        """Sends the order of the first epoch, and no images yet.

        Args:
          images: uint8 [N, H, W, 1], the whole data set, in memory or mapped into it.
          labels: int32 [N].
          order: epoch -> indices for this process's devices, int32 [d, S, b].
          num_steps: S, in an epoch.
          devices: of all processes.
        """
        self._images, self._labels, self._order_of = images, labels, order
        self._devices = devices
        self._epoch, self._epoch_order = 0, order(0)
        num_devices, _, batch_size = self._epoch_order.shape
        step_bytes = num_devices * batch_size * images[:1].nbytes
        self._block_steps = min(num_steps, max(1, BLOCK_BYTES // step_bytes))
        places = np.arange(num_steps)[:, None] % self._block_steps * batch_size
        places = (places + np.arange(batch_size)).astype(np.int32)
        self._num_blocks = -(-num_steps // self._block_steps)
        self.order = placement.distribute_local(
            np.stack([places] * num_devices), self._devices
        )
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "feed")
        self._held, self._ahead = {}, {}  # by (epoch, block), one of each

    def blocks(self, epoch: int, first: int, last: int) -> Iterator[Block]:
        """What steps `first` to `last` of that epoch need; a block if there is none."""
        length = self._block_steps
        for number in range(first // length, max(first, last - 1) // length + 1):
            key = (epoch, number)
            if key not in self._held:
                self._held.clear()  # before the next is waited for
                ahead = self._ahead.pop(key, None) or self._send_ahead(key)
                self._held[key] = ahead.result()
                is_last = number + 1 == self._num_blocks
                following = (epoch + 1, 0) if is_last else (epoch, number + 1)
                self._ahead = {following: self._send_ahead(following)}
            start, stop = number * length, (number + 1) * length
            yield Block(*self._held[key], max(first, start), min(last, stop))

    def _send_ahead(self, key: tuple[int, int]) -> concurrent.futures.Future:
        return self._thread.submit(self._send, *key)

    def _send(self, epoch: int, number: int) -> tuple:
        """The images and labels of a block, on their devices; only in the thread."""
        if epoch != self._epoch:
            self._epoch, self._epoch_order = epoch, self._order_of(epoch)
        steps = slice(number * self._block_steps, (number + 1) * self._block_steps)
        indices = self._epoch_order[:, steps]
        num_devices, num_steps, batch_size = indices.shape
        # The last block of an epoch may have fewer steps; what is behind them is not
        # read.
        length = self._block_steps * batch_size
        images = np.empty((num_devices, length, *self._images.shape[1:]), np.uint8)
        labels = np.empty((num_devices, length), np.int32)
        for i, own in enumerate(indices.reshape(num_devices, -1)):
            for source, block in ((self._images, images), (self._labels, labels)):
                # All indices are inside; 'raise' would copy once more.
                source.take(own, axis=0, out=block[i, : own.size], mode="clip")
        return placement.distribute_local((images, labels), self._devices)
