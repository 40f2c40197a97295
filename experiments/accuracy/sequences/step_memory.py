"""How much memory the training steps of a run take."""

import dataclasses

import numpy as np

from experiments.common import runs
from mnist_jax import training_setup

_FILE = "step_memory.npz"


def temporary_bytes(run: runs.Run) -> int:
    """Of the arrays that live within a step on one device, kept in the run's folder.

    XLA plans them when it compiles, so that no other work on the machine counts; the
    images, params and moments are not among them.

    Args:
      run: finished.
    """

    def compute():
        setup = training_setup.prepare(dataclasses.replace(run.config, num_devices=1))
        return {"bytes": np.int64(setup.trainer.temporary_bytes())}

    return int(runs.kept_arrays(run, _FILE, compute)["bytes"])
