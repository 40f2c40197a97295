"""Times training steps, and their all-reduce alone, on virtual CPU devices.

    python -m experiments.speed.growth_parts.measurement mlp 512 2 40
    python -m experiments.speed.growth_parts.measurement mlp 512 1 40 127.0.0.1:1234 2 0

The first: a model, images per device, devices and steps. The second is process 0 of two
with a device each. Prints seconds of a step as JSON.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments.speed.accelerator_parts import runs
from mnist_jax.parallel import devices as devices_lib
from mnist_jax.parallel import placement, programs

_STRETCHES = 3  # the best counts: noise only adds


def measure(
    model: str, own_batch: int, num_steps: int, devices: Sequence[jax.Device]
) -> dict[str, Any]:
    """Seconds of a step and of its all-reduce, whose bytes are those of the params."""
    batch_size = own_batch * len(devices)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size * 4, 28, 28, 1), np.uint8)
    labels = (np.arange(len(images)) % 10).astype(np.int32)
    config = runs.step_config(model, batch_size=batch_size)
    trainer = runs.make_trainer(config, images, labels, devices)
    trainer.compile()
    per_epoch = trainer.num_steps
    seconds = []
    for _ in range(1 + _STRETCHES):  # the first warms up
        began = time.perf_counter()
        for _ in range(-(-num_steps // per_epoch)):
            trainer.run(0, per_epoch)
        taken = time.perf_counter() - began
        seconds.append(taken / (-(-num_steps // per_epoch) * per_epoch))
    params = trainer.fetch_state().params
    return {
        "step_seconds": min(seconds[1:]),
        "all_reduce_seconds": time_all_reduce(params, num_steps, devices),
    }


def time_all_reduce(
    params: Any, num_steps: int, devices: Sequence[jax.Device]
) -> float:
    """Seconds of averaging so many parameters once over the devices."""

    def many(_, tree, number):
        return jax.lax.fori_loop(0, number, lambda _, x: programs.average(x), tree)

    program = jax.pmap(
        many,
        axis_name=placement.AXIS,
        in_axes=(0, None, None),
        out_axes=None,
        devices=devices,
    )
    # pmap wants one argument that is split.
    own = np.zeros(len(placement.local_devices(devices)))
    placed, seconds = placement.replicate(params, devices), []
    for _ in range(1 + _STRETCHES):
        began = time.perf_counter()
        jax.block_until_ready(program(own, placed, num_steps))
        seconds.append((time.perf_counter() - began) / num_steps)
    return min(seconds[1:])


def main(
    model: str, own_batch: str, num_devices: str, num_steps: str, *group: str
) -> None:
    if num_devices == "1" and hasattr(os, "sched_setaffinity"):
        # One device works on one core, here and in the group.
        cores = sorted(os.sched_getaffinity(0))
        number = int(group[2]) if group else 0
        os.sched_setaffinity(0, {cores[number % len(cores)]})
    if group:
        address, num_processes, process_id = group
        devices_lib.start(1, address, int(num_processes), int(process_id))
    else:
        devices_lib.start(int(num_devices))
    found = measure(model, int(own_batch), int(num_steps), jax.devices())
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
