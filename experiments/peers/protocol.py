"""The worker's side of the benchmark; standard library and NumPy alone.

A worker trains one model in one library. It is started as

    python -m peers.pytorch --lane=torch --model=gru --batch_size=128 --threads=2
        --data=data.npz

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

    lane: str
    model: str
    batch_size: int
    threads: int
    images: np.ndarray  # uint8 [N, 28, 28, 1], 0-255
    labels: np.ndarray  # int32 [N], 0-9

    @property
    def num_steps(self) -> int:
        """Whole batches in an epoch."""
        return len(self.images) // self.batch_size


class Lane(NamedTuple):
    """What a worker has built from its task."""

    run_epoch: Callable[[], dict[str, Any]]  # its result has 'seconds' at least
    versions: dict[str, str]  # library -> version
    num_params: int | None = None
    # Those of the parameters that are only ever added to others.
    redundant_params: int = 0


def serve(build: Callable[[Task], Lane]) -> None:
    """Reads the command line, builds, warms up and answers until the input ends."""
    task, replies = _parse_arguments()

    def reply(**content):
        replies.write(json.dumps(content) + "\n")
        replies.flush()

    began = time.perf_counter()
    lane = build(task)
    lane.run_epoch()
    reply(
        ready=True,
        num_params=lane.num_params,
        redundant_params=lane.redundant_params,
        warm_up_seconds=time.perf_counter() - began,
        versions={"python": sys.version.split()[0], **lane.versions},
    )
    for line in sys.stdin:
        if line.strip() != "epoch":
            raise ValueError(f"expected 'epoch', got {line!r}")
        reply(**lane.run_epoch())


def timed(train_epoch: Callable[[], float]) -> Callable[[], dict[str, Any]]:
    """Makes `Lane.run_epoch` of a function that trains and returns the mean loss."""

    def run_epoch():
        began = time.perf_counter()
        loss = train_epoch()
        return {"seconds": time.perf_counter() - began, "loss": loss}

    return run_epoch


def take_turn(run_epoch: Callable[[], dict[str, Any]], seconds: float) -> dict:
    """Epochs until `seconds` have passed: what the last one gave, their mean time."""
    times = []
    while sum(times) < seconds or not times:
        measured = run_epoch()
        times.append(measured["seconds"])
    return measured | {"seconds": sum(times) / len(times)}


def to_float(images: np.ndarray) -> np.ndarray:
    """uint8 0-255 -> float32 0-1, the same shape."""
    return images.astype(np.float32) / 255


def _parse_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lane", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch_size", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--data", required=True)
    # Not the standard output, to which libraries print.
    parser.add_argument("--replies", type=int, default=1, help="a file descriptor")
    given = parser.parse_args()
    with np.load(given.data, allow_pickle=False) as arrays:
        task = Task(
            given.lane,
            given.model,
            given.batch_size,
            given.threads,
            arrays["images"],
            arrays["labels"],
        )
    return task, os.fdopen(given.replies, "w")
