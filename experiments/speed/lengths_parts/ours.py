"""One model of this package at one length.

python -m experiments.speed.lengths_parts.ours '["gru", 784, 128, 2.0, 0]'
"""

import json
import sys

import jax
import numpy as np

from experiments.common.sequence_recipes import MODELS, matched_units
from experiments.speed.lengths_parts import training
from experiments.speed.plain_runs import make_plain_config, make_plain_trainer
from mnist_jax.parallel import devices


def main() -> None:
    model, length, batch_size, seconds, remat_steps = json.loads(sys.argv[1])
    # A program out of the cache is not compiled, which takes memory, too.
    jax.config.update("jax_enable_compilation_cache", False)
    devices.start()
    rng = np.random.default_rng(0)
    # Each row is one pixel.
    images = rng.integers(0, 256, (4 * batch_size, length, 1, 1), np.uint8)
    labels = rng.integers(0, 10, len(images)).astype(np.int32)
    own = {k: v for k, v in MODELS[model].items() if k != "learning_rate"}
    if remat_steps:
        own["remat_steps"] = remat_steps
    config = make_plain_config(model, batch_size, matched_units(model), **own)

    def make_step():
        trainer = make_plain_trainer(config, images, labels)
        trainer.start_epoch(0)
        trainer.compile()
        return lambda: trainer.run(0, 1)

    print(json.dumps(training.measure(make_step, batch_size, seconds)))


if __name__ == "__main__":
    main()
