"""The worker's side of the benchmark; standard library and NumPy alone.

A worker trains one model in one framework. PyTorch and Keras have interpreters of their
own, without the package. A worker is started in the root of the repository as

    python -m experiments.speed.frameworks.pytorch --framework=torch --model=gru
        --batch_size=128 --threads=2 --data=data.npz

builds the model, trains one epoch to warm up, says with one line of JSON that it is
ready, and then answers each line "epoch" on its input with one line of JSON about
one more epoch. It ends with its input.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Task(NamedTuple):
    """What a worker is to train."""

    framework: str  # a key of `registry.FRAMEWORKS`
    model: str
    batch_size: int
    threads: int
    images: np.ndarray  # uint8 [N, 28, 28, 1], 0-255
    labels: np.ndarray  # int32 [N], 0-9

    @property
    def num_steps(self) -> int:
        """Whole batches in an epoch."""
        return len(self.images) // self.batch_size


class Benchmark(NamedTuple):
    """What a worker has built from its task."""

    run_epoch: Callable[[], dict[str, Any]]  # its result has 'seconds' at least
    versions: dict[str, str]  # library -> version
    num_params: int | None = None
    # Those of the parameters that are only ever added to others.
    redundant_params: int = 0


def serve(build: Callable[[Task], Benchmark]) -> None:
    """Reads the command line, builds, warms up and answers until the input ends."""
    task, replies = _parse_arguments()

    def reply(**content):
        replies.write(json.dumps(content) + "\n")
        replies.flush()

    began = time.perf_counter()
    benchmark = build(task)
    benchmark.run_epoch()
    reply(
        ready=True,
        num_params=benchmark.num_params,
        redundant_params=benchmark.redundant_params,
        warm_up_seconds=time.perf_counter() - began,
        versions={"python": sys.version.split()[0], **benchmark.versions},
    )
    for line in sys.stdin:
        if line.strip() != "epoch":
            raise ValueError(f"expected 'epoch', got {line!r}")
        reply(**benchmark.run_epoch())


def to_float(images: np.ndarray) -> np.ndarray:
    """uint8 0-255 -> float32 0-1, the same shape."""
    return images.astype(np.float32) / 255


def _parse_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--framework", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch_size", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--data", required=True)
    # Not the standard output, to which libraries print.
    parser.add_argument("--replies", type=int, default=1, help="a file descriptor")
    given = parser.parse_args()
    with np.load(given.data, allow_pickle=False) as arrays:
        task = Task(
            given.framework,
            given.model,
            given.batch_size,
            given.threads,
            arrays["images"],
            arrays["labels"],
        )
    return task, os.fdopen(given.replies, "w")
