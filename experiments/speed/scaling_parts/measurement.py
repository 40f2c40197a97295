"""One point of the scaling study, trained in a process of its own.

    python -m experiments.speed.scaling_parts.measurement '["gru", 128, 128, 28]' 2.0

trains it for two seconds and prints what `measure` returns as JSON.
"""

import json
import sys
from typing import Any

import jax
import numpy as np

from experiments.common.memory import peak_bytes, reset_peak, resident_bytes
from experiments.speed.plain_runs import (
    NUM_CLASSES,
    make_plain_config,
    make_plain_trainer,
)
from experiments.speed.scaling_parts.points import Point
from mnist_jax import flops
from mnist_jax.errors import first_line
from mnist_jax.parallel import devices
from mnist_jax.trainer import CHUNK_SECONDS, Trainer
from mnist_jax.training_setup import build_model

STRETCHES = 3
NUM_IMAGES = 16384  # four of the largest batches
_EPOCH_IMAGES = 4 * NUM_IMAGES  # what one call of the program can train on


def make_images(time_steps: int | None, number: int = NUM_IMAGES) -> np.ndarray:
    """Noise in the shape that a recurrent model reads in so many time steps.

    Args:
      time_steps: T, a divisor of 784; None for 28.
      number: N.

    Returns:
      uint8 [N, T, 784 / T, 1].
    """
    shape = (number, time_steps or 28, -1, 1)
    pixels = np.random.default_rng(0).integers(0, 256, (number, 784), np.uint8)
    return pixels.reshape(shape)


def measure(point: Point, seconds: float) -> dict[str, Any]:
    """Trains in this process, which has done nothing else.

    Args:
      point: what to train.
      seconds: how long, after compilation.

    Returns:
      The fields of `point`, and:
        seconds_per_image: of training, the best of `STRETCHES`.
        compile_seconds: of the training program, with its tracing.
        num_devices: those that shared each batch.
        memory_bytes: peak of the resident set over what was resident before the
          training program was compiled.
        macs: for one image, forward.
    """
    # A program out of the cache is not compiled.
    jax.config.update("jax_enable_compilation_cache", False)
    devices.start()
    images = make_images(point.time_steps)
    labels = np.random.default_rng(1).integers(0, NUM_CLASSES, NUM_IMAGES, np.int32)
    config = make_plain_config(point.model, point.batch_size, point.units)
    trainer = make_plain_trainer(
        config, images, labels, np.arange(_EPOCH_IMAGES) % NUM_IMAGES
    )
    trainer.start_epoch(0)
    jax.block_until_ready(trainer.state)

    reset_peak()
    bytes_before = resident_bytes()
    compile_seconds = trainer.compile()
    step_seconds = trainer.run(0, 1)  # finds out where its memory is
    stretches = []
    for _ in range(STRETCHES):
        step_seconds = train(trainer, step_seconds, seconds / STRETCHES)
        stretches.append(step_seconds / point.batch_size)
    memory_bytes = peak_bytes() - bytes_before
    model = build_model(config, images.shape[1:], NUM_CLASSES)
    work = flops.of_model(model, trainer.state.params, images.shape[1:])
    return {
        **point._asdict(),
        "seconds_per_image": min(stretches),
        "compile_seconds": compile_seconds,
        "num_devices": len(trainer.devices),
        "memory_bytes": memory_bytes,
        "macs": work.macs,
    }


def train(trainer: Trainer, step_seconds: float, seconds: float) -> float:
    """Trains for about so many seconds, a step at least; returns seconds per step.

    Args:
      trainer: whose epoch has started.
      step_seconds: a guess.
      seconds: how long.
    """
    done, spent = 0, 0.0
    # Not to the very end: a last call of few steps would be little but overhead.
    while spent < 0.9 * seconds:
        steps = round(min(CHUNK_SECONDS, seconds - spent) / step_seconds)
        steps = min(max(1, steps), trainer.num_steps)
        spent += trainer.run(0, steps)
        done += steps
        step_seconds = spent / done
    return step_seconds


def main() -> None:
    point, seconds = Point(*json.loads(sys.argv[1])), float(sys.argv[2])
    try:
        print(json.dumps(measure(point, seconds)))
    except Exception as error:  # whatever it is, the other process says it in a line
        sys.exit(f"{type(error).__name__}: {first_line(error)}")


if __name__ == "__main__":
    main()
