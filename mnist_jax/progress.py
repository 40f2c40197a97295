"""Shows a run's progress: a bar on a terminal, one line per epoch elsewhere."""

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import tqdm

from mnist_jax.formats import format_loss

_FEW = 20  # that need no bar


def bar(items: Iterable[Any], number: int, unit: str) -> Iterable[Any]:
    """The items, under a bar on a terminal where there are more than a few.

    Args:
      items: of an unknown length.
      number: of them.
      unit: what they are.
    """
    is_silent = number <= _FEW or not sys.stderr.isatty()
    return tqdm.tqdm(
        items, total=number, unit=unit, dynamic_ncols=True, disable=is_silent
    )


class Progress:
    """Progress over all steps of a run.

    Args:
      num_epochs: of the run.
      epoch_images: images trained on in one epoch.
      done: images trained on before this start.
      is_silent: whether another process shows the progress.
    """

    def __init__(
        self, num_epochs: int, epoch_images: int, done: int, is_silent: bool = False
    ):
        self._num_epochs, self._epoch_images = num_epochs, epoch_images
        self._bar = tqdm.tqdm(
            total=num_epochs * epoch_images,
            initial=done,
            unit=" images",
            unit_scale=True,
            dynamic_ncols=True,
            disable=is_silent or not sys.stderr.isatty(),
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception):
        self._bar.close()

    def update(self, num_images: int, loss: float, accuracy: float) -> None:
        """Moves on by so many images; loss and accuracy are of their steps."""
        self._bar.update(num_images)
        epoch = -(-self._bar.n // self._epoch_images)
        self._bar.set_description_str(f"epoch {epoch}/{self._num_epochs}", False)
        self._bar.set_postfix_str(f"loss {format_loss(loss)}, accuracy {accuracy:.2%}")

    def end_epoch(self, measured: Mapping[str, Any]) -> None:
        """Prints the line of a finished epoch; `measured` as in metrics.jsonl."""
        epoch, rate = measured["epoch"], measured["images_per_second"]
        left = (self._num_epochs - epoch) * self._epoch_images / rate
        parts = [
            f"epoch {epoch}/{self._num_epochs}",
            f"loss {format_loss(measured['train_loss'])}",
            f"accuracy {measured['train_accuracy']:.2%}",
        ]
        if measured["validation_loss"] is not None:
            parts += [
                f"validation loss {format_loss(measured['validation_loss'])}",
                f"accuracy {measured['validation_accuracy']:.2%}",
            ]
        parts += [f"{rate:,.0f} images/s", f"{left:.0f} s left"]
        tqdm.tqdm.write("  ".join(parts), file=sys.stderr)
        sys.stderr.flush()
