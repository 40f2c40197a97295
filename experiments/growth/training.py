"""One point of the study of growth, trained in a process of its own.

    PYTHONPATH=experiments python -m growth.training '["gru", 128, 128, 28]' 2.0

trains it for two seconds and prints what `measure` says of it as JSON.
"""

import ctypes
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from growth.points import RECURRENT, Point
from mnist_jax import models, optim, parallel, records, step
from mnist_jax.config import Config, make_config
from mnist_jax.train.loop import CHUNK_SECONDS
from mnist_jax.train.run import epoch_order, make_programs

STRETCHES = 3
NUM_IMAGES = 16384  # four of the largest batches
_ORDER_IMAGES = 4 * NUM_IMAGES  # what one call of the program can train on
_SEED = 0


class Reader(nn.Module):
    """An image read as a sequence of any length; at 28 steps that of the package.

    Images float32 [B, 28, 28, 1] and no keys -> logits float32 [B, 10].

    Attributes:
      cell: 'rnn', 'lstm' or 'gru'.
      units: H, size of the hidden state.
      steps: T, a divisor of 784.
    """

    cell: str
    units: int
    steps: int

    @nn.compact
    def __call__(self, images: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        pieces = images.reshape(len(images), self.steps, -1)  # [B, T, 784 / T]
        layer = models.RecurrentLayer(self.cell, self.units, last_only=True)
        return models.Dense(models.NUM_CLASSES)(layer(pieces.swapaxes(0, 1)))


def build(point: Point) -> tuple[Config, nn.Module]:
    """Plain settings instead of the model's preset."""
    settings = {
        "mlp": dict(hidden_sizes=(point.units,), dropout=0.0),
        "cnn": dict(dropout=0.0),
    }
    config = make_config(
        point.model,
        "mnist",
        seed=_SEED,
        batch_size=point.batch_size,
        optimizer="adam",
        learning_rate=1e-3,
        schedule="constant",
        weight_decay=0.0,
        clip_norm=0.0,
        augment="none",
        **settings.get(point.model, {}),
    )
    if point.model in RECURRENT:
        return config, Reader(point.model, point.units, point.steps)
    return config, models.build_model(config)


class Trainer:
    """A compiled training program with its state, on images of noise."""

    def __init__(self, point: Point):
        config, model = build(point)
        schedule = optim.make_schedule(config.schedule, config.learning_rate, 1)
        programs = make_programs(config, model, schedule)
        devices = programs.devices
        self.multiplications = programs.work.multiplications
        rng = np.random.default_rng(_SEED)
        images = rng.integers(0, 256, (NUM_IMAGES, 28, 28, 1), np.uint8)
        labels = rng.integers(0, 10, NUM_IMAGES, np.int32)
        rows = np.arange(_ORDER_IMAGES) % NUM_IMAGES
        order = epoch_order(rows, point.batch_size, _SEED, 0)
        self.num_steps = len(order)  # of one call at most
        self.order = parallel.split_order(order, len(devices))
        history = step.Metrics(*np.zeros((2, self.num_steps), np.float32))
        data = (images, labels, np.uint32(_SEED))
        start = parallel.replicate((programs.state, history, data), devices)
        self.state, self.history, self.data = jax.block_until_ready(start)
        self.num_devices, self.batch_size = len(devices), point.batch_size

        start_peak_anew()
        self.bytes_before = resident_bytes()
        began = time.perf_counter()
        # What is compiled here is called later, so that it is compiled once.
        self.program = programs.chunk.lower(*self._arguments(0)).compile()
        self.compile_seconds = time.perf_counter() - began
        # The first step finds out where its memory is.
        self.step_seconds = self._train(1)

    def stretch(self, seconds: float) -> float:
        """Seconds per image, over a stretch of about `seconds`, a step at least."""
        done, spent = 0, 0.0
        # Not to the very end: a last call of few steps would be little but overhead.
        while spent < 0.9 * seconds:
            steps = round(min(CHUNK_SECONDS, seconds - spent) / self.step_seconds)
            steps = min(max(1, steps), self.num_steps)
            spent += self._train(steps)
            done += steps
            self.step_seconds = spent / done
        return self.step_seconds / self.batch_size

    def _train(self, steps: int) -> float:
        """Seconds that so many steps take."""
        began = time.perf_counter()
        self.state, self.history = self.program(*self._arguments(steps))
        jax.block_until_ready(self.history)
        return time.perf_counter() - began

    def _arguments(self, steps: int) -> tuple:
        return self.state, self.history, *self.data, self.order, 0, steps


def measure(point: Point, seconds: float) -> dict[str, Any]:
    """Trains in this process, which has done nothing else.

    Args:
      point: what to train.
      seconds: how long, after compilation.

    Returns:
      The fields of `point`, and:
        seconds_per_image: of training.
        compile_seconds: of the training program, with its tracing.
        num_devices: those that shared each batch.
        memory_bytes: peak of the resident set over what was resident before the
          training program was compiled.
        multiplications: of one image, forward.
    """
    # A program out of the cache is not compiled.
    jax.config.update("jax_enable_compilation_cache", False)
    parallel.start()
    trainer = Trainer(point)
    stretches = [trainer.stretch(seconds / STRETCHES) for _ in range(STRETCHES)]
    return {
        **point._asdict(),
        "seconds_per_image": min(stretches),
        "compile_seconds": trainer.compile_seconds,
        "num_devices": trainer.num_devices,
        "memory_bytes": peak_bytes() - trainer.bytes_before,
        "multiplications": trainer.multiplications,
    }


def start_peak_anew() -> None:
    """Makes Linux forget this process's peak, which compilations came before.

    Elsewhere the peak stays, and a run that needs less shows as too much.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
    if trim:
        trim(0)  # what was left free is tens of MiB, now more, now less
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def peak_bytes() -> int:
    """The largest resident set of this process so far.

    Linux counts that of the process that started it too, which never trains, so it is
    smaller.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def resident_bytes() -> int:
    """The resident set of this process; where the system does not tell, its peak."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_bytes()
    # The peak is kept less exactly and can lag behind.
    return min(pages * resource.getpagesize(), peak_bytes())


def main() -> None:
    point, seconds = Point(*json.loads(sys.argv[1])), float(sys.argv[2])
    try:
        print(json.dumps(measure(point, seconds)))
    except Exception as error:  # whatever it is, the other process says it in a line
        sys.exit(f"{type(error).__name__}: {records.first_line(error)}")


if __name__ == "__main__":
    main()
