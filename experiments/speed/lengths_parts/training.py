"""Timing and memory of training steps, in a process that has done nothing else."""

import time
from collections.abc import Callable
from typing import Any

from experiments.common.memory import peak_bytes, reset_peak, resident_bytes

STRETCHES = 3


def measure(
    make_step: Callable[[], Callable[[], Any]], batch_size: int, seconds: float
) -> dict[str, float]:
    """Trains for so many seconds, after a first step that is not counted.

    Args:
      make_step: builds a function that trains on one batch and waits for it.
      batch_size: of a step.
      seconds: of training; a step in each of `STRETCHES` at least.

    Returns:
      'seconds_per_image', the best stretch, as noise only adds; 'memory_bytes', the
      peak of the resident set over what was resident before `make_step`.
    """
    reset_peak()
    before = resident_bytes()
    step = make_step()
    step()
    stretches = []
    for _ in range(STRETCHES):
        began, steps = time.perf_counter(), 0
        while not steps or time.perf_counter() - began < seconds / STRETCHES:
            step()
            steps += 1
        stretches.append((time.perf_counter() - began) / steps / batch_size)
    return {
        "seconds_per_image": min(stretches),
        "memory_bytes": peak_bytes() - before,
    }
