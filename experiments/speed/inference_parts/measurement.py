"""What a worker measures of one model in one framework; NumPy alone.

A worker is one of `frameworks.protocol` whose "epoch" is a turn: calls with one image,
then calls with `LARGE_BATCH` images for about as long, each from uint8 images to
probabilities, both in NumPy arrays.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.speed.frameworks.protocol import Benchmark, Task

LARGE_BATCH = 1000
CALLS = 500  # with one image, in a turn
_SECONDS = 1.0  # of calls with many, at least
_WARM_UP_SECONDS = 0.3

Predict = Callable[[np.ndarray], np.ndarray]  # uint8 [N, 28, 28, 1] -> float32 [N, 10]


def benchmark(
    task: Task,
    predict: Predict,
    versions: dict[str, str],
    num_params: int,
    redundant_params: int = 0,
    predict_many: Predict | None = None,
    predict_all: Predict | None = None,
) -> Benchmark:
    """What `protocol.serve` takes.

    Args:
      task: its images are the test set.
      predict: probabilities, whose rows sum to 1.
      versions, num_params, redundant_params: see `protocol.Benchmark`.
      predict_many: for the large batch, where that is another program.
      predict_all: for the whole test set; None to leave it out.
    """
    images, large = task.images, task.images[:LARGE_BATCH]
    check(predict(images[:1]))

    def take_turn() -> dict[str, Any]:
        # Processors are slow in the first tenths of a second after a pause.
        began = time.perf_counter()
        while time.perf_counter() - began < _WARM_UP_SECONDS:
            predict(images[:1])
        latencies = [
            seconds(predict, images[i % len(images)][None]) for i in range(CALLS)
        ]
        measured = {
            "latencies": latencies,
            "images_per_second": throughput(predict_many or predict, large),
        }
        if predict_all:
            measured["test_set_per_second"] = throughput(predict_all, images)
        return measured

    return Benchmark(take_turn, versions, num_params, redundant_params)


def seconds(predict: Predict, images: np.ndarray) -> float:
    """Of one call."""
    began = time.perf_counter()
    predict(images)
    return time.perf_counter() - began


def throughput(predict: Predict, images: np.ndarray) -> float:
    """Images per second: the mean over `_SECONDS` of calls, after one that warms up."""
    check(predict(images))
    times: list[float] = []
    while sum(times) < _SECONDS:
        times.append(seconds(predict, images))
    return len(images) * len(times) / sum(times)


def check(probabilities: np.ndarray) -> None:
    """Raises ValueError where rows do not sum to 1."""
    if not np.allclose(probabilities.sum(-1), 1, atol=1e-3):
        raise ValueError("rows of probabilities do not sum to 1")
