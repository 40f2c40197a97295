"""Event files for TensorBoard: the only user of tensorboardX, an optional extra."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mnist_jax import extras
from mnist_jax.storage.records import TENSORBOARD


def check() -> None:
    """Raises ConfigError where tensorboardX is not installed."""
    extras.check(
        "--tensorboard", "tensorboard", "tensorboardX", remedy="leave the flag out"
    )


class EventFiles:
    """Writes the lines of metrics.jsonl as scalars, by epoch.

    What an earlier start of the run wrote is written anew, so that no epoch is there
    twice after a crash.
    """

    def __init__(self, workdir: Path):
        """Writes nothing yet; raises as `check` does."""
        check()
        self._folder, self._writer, self._num_written = workdir / TENSORBOARD, None, 0

    def write(self, epochs: Sequence[Mapping[str, Any]]) -> None:
        """Adds those of the finished epochs that are new."""
        if self._writer is None:
            for path in self._folder.glob("events.out.tfevents.*"):
                path.unlink()
            import tensorboardX

            self._writer = tensorboardX.SummaryWriter(str(self._folder))
        for epoch in epochs[self._num_written :]:
            for key, value in epoch.items():
                if key != "epoch" and value is not None:
                    self._writer.add_scalar(_tag(key), value, epoch["epoch"])
        self._num_written = len(epochs)
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _tag(key: str) -> str:
    """train_loss -> loss/train, so that training and validation share a section."""
    part, _, what = key.partition("_")
    return f"{what}/{part}" if part in ("train", "validation") else key
