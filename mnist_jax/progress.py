"""Shows a run's progress: a bar on a terminal, one line per epoch elsewhere."""

import sys
from collections.abc import Mapping
from typing import Any

import tqdm

from mnist_jax.config import Config


class Progress:
    """Progress over all steps of a run.

    Args:
      config: the run's settings.
      num_steps: steps in one epoch.
      done: steps done before this start.
      is_silent: whether another process shows the progress.
    """

    def __init__(
        self, config: Config, num_steps: int, done: int, is_silent: bool = False
    ):
        self._config = config
        self._epoch_images = num_steps * config.batch_size
        self._bar = tqdm.tqdm(
            total=config.epochs * self._epoch_images,
            initial=done * config.batch_size,
            unit=" images",
            unit_scale=True,
            dynamic_ncols=True,
            disable=is_silent or not sys.stderr.isatty(),
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception):
        self._bar.close()

    def update(self, num_steps: int, loss: float, accuracy: float) -> None:
        """Moves on by `num_steps`; loss and accuracy are of those steps."""
        self._bar.update(num_steps * self._config.batch_size)
        epoch = -(-self._bar.n // self._epoch_images)
        self._bar.set_description_str(f"epoch {epoch}/{self._config.epochs}", False)
        self._bar.set_postfix_str(f"loss {loss:.4f}, accuracy {accuracy:.2%}")

    def end_epoch(self, measured: Mapping[str, Any]) -> None:
        """Prints the line of a finished epoch; `measured` as in metrics.jsonl."""
        epoch, rate = measured["epoch"], measured["images_per_second"]
        left = (self._config.epochs - epoch) * self._epoch_images / rate
        parts = [
            f"epoch {epoch}/{self._config.epochs}",
            f"loss {measured['train_loss']:.4f}",
            f"accuracy {measured['train_accuracy']:.2%}",
        ]
        if measured["validation_loss"] is not None:
            parts += [
                f"validation loss {measured['validation_loss']:.4f}",
                f"accuracy {measured['validation_accuracy']:.2%}",
            ]
        parts += [f"{rate:,.0f} images/s", f"{left:.0f} s left"]
        tqdm.tqdm.write("  ".join(parts), file=sys.stderr)
        sys.stderr.flush()
