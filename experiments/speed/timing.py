"""Timing of epochs by turns; standard library alone, as foreign interpreters use it."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

PAUSE = 0.5  # seconds; a framework's idle threads spin for some time before they sleep
# Of a `median_range` in a table's column.
MEDIAN_RANGE = "{0[median]:.2f} ({0[lowest]:.2f} to {0[highest]:.2f})"


def timed(train_epoch: Callable[[], float]) -> Callable[[], dict[str, Any]]:
    """Makes of a function that trains an epoch and returns its mean loss one that
    returns {'seconds': .., 'loss': ..}."""

    def run_epoch():
        began = time.perf_counter()
        loss = train_epoch()
        return {"seconds": time.perf_counter() - began, "loss": loss}

    return run_epoch


def take_turn(
    run_epoch: Callable[[], dict[str, Any]], seconds: float
) -> dict[str, Any]:
    """Runs epochs until `seconds` have passed, one at least.

    Returns:
      What the last one returned, with the mean 'seconds' of all.
    """
    times = []
    while sum(times) < seconds or not times:
        measured = run_epoch()
        times.append(measured["seconds"])
    return measured | {"seconds": sum(times) / len(times)}


def median_range(values: Sequence[float]) -> dict[str, float]:
    """'median', 'lowest' and 'highest' of one value or more."""
    return {
        "median": statistics.median(values),
        "lowest": min(values),
        "highest": max(values),
    }
