"""An epoch of generated images in a file, and the memory that it takes.

python -m experiments.speed.placement_parts.measurement IMAGES.npy host
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.common import memory
from experiments.speed import plain_runs
from experiments.speed.frameworks.families import NUM_CLASSES
from mnist_jax.parallel import devices

MODEL, BATCH_SIZE = "mlp", 128
BYTES = 28 * 28  # of an image
_AT_ONCE = 2**16  # images that are generated together


def generate(path: Path, num_images: int) -> None:
    """Writes random images, uint8 [N, 28, 28, 1], as a file that can be mapped."""
    shape = (num_images, 28, 28, 1)
    images = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    rng = np.random.default_rng(0)
    for first in range(0, num_images, _AT_ONCE):
        part = images[first : first + _AT_ONCE]
        part[:] = np.frombuffer(rng.bytes(part.size), np.uint8).reshape(part.shape)
    images.flush()


def measure(path: Path, placement: str) -> dict[str, Any] | None:
    """One epoch on the images of a file, after some steps that compile and warm up.

    Args:
      path: as `generate` writes it; mapped, not read.
      placement: of the images, see `config.Config.data_placement`.

    Returns:
      'seconds' of the epoch, and 'bytes' of memory that it took at most over what the
      libraries had taken, without what only maps a file; None where the images would
      take too much of the devices' memory.
    """
    images = np.load(path, mmap_mode="r")
    labels = np.random.default_rng(1).integers(NUM_CLASSES, size=len(images))
    config = plain_runs.make_plain_config(
        MODEL, BATCH_SIZE, data_placement=placement, validation_fraction=0.0
    )
    if placement == "device" and devices.are_large(images.nbytes, jax.devices()):
        return None
    before = memory.anonymous_bytes()
    with memory.highest(memory.anonymous_bytes) as most:
        trainer = plain_runs.make_plain_trainer(config, images, labels.astype(np.int32))
        trainer.compile()
        trainer.run(0, min(100, trainer.num_steps))
        seconds = plain_runs.make_epochs(trainer)()["seconds"]
    return {"seconds": seconds, "bytes": most() - before}


def main(path: str, placement: str) -> None:
    devices.start()
    print(json.dumps(measure(Path(path), placement)))


if __name__ == "__main__":
    main(*sys.argv[1:])
