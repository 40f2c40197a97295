"""Compiles the training program of one model for a machine that is not there.

    python -m experiments.speed.accelerator_parts.compilation v5e:2x2 cnn float32 1024

Prints what it found as JSON. Its environment is `targets.environment`.
"""

import json
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies

from experiments.speed.accelerator_parts import hlo, runs, targets
from mnist_jax import flops, train_step, training_setup
from mnist_jax.config import Config
from mnist_jax.parallel import devices as devices_lib
from mnist_jax.parallel import programs

_NUM_IMAGES, _IMAGE_SHAPE, _NUM_CLASSES = 60_000, (28, 28, 1), 10


def devices_of(name: str) -> list[jax.Device]:
    """The devices of a target, which can be compiled for."""
    target = targets.find(name)
    given = {"topology_name": target.topology}
    if target.platform == "cuda":
        given = {
            "topology": target.topology, "target_config": targets.H100_CONFIG
        }  # fmt: skip
    topology = topologies.get_topology_desc(platform=target.platform, **given)
    return list(topology.devices)


def lower(config: Config, devices: list[jax.Device]) -> tuple[Any, flops.Work]:
    """The training program of a run on 60,000 images, and the model's work."""
    parts = runs.make_parts(config, _NUM_IMAGES, _IMAGE_SHAPE, _NUM_CLASSES)
    model, optimizer, state, work, num_steps = parts
    own_batch = config.batch_size // len(devices)
    array = jax.ShapeDtypeStruct
    arguments = (
        state,
        train_step.init_history(num_steps),
        {"seed": np.uint32(0)},
        array((_NUM_IMAGES, *_IMAGE_SHAPE), jnp.uint8),
        array((_NUM_IMAGES,), jnp.int32),
        array((len(devices), num_steps, own_batch), jnp.int32),
        array((), jnp.int32),
        array((), jnp.int32),
    )
    shapes = jax.tree.map(lambda x: array(x.shape, x.dtype), arguments)
    # Microbatches are for the caches of CPUs.
    make_step = training_setup.step_maker(config, model, optimizer, None)
    chunk = programs.make_train_chunk(make_step, devices)
    return chunk.lower(*shapes), work


def measure(name: str, model: str, precision: str, batch_size: int) -> dict[str, Any]:
    """A row of the study, see `compile_for_accelerators`."""
    jax.config.update(*devices_lib.EXACT_MATMULS)
    devices, target = devices_of(name), targets.find(name)
    config = runs.step_config(model, batch_size=batch_size, precision=precision)
    lowered, work = lower(config, devices)
    began = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - began
    memory, program = compiled.memory_analysis(), hlo.Program(compiled.as_text())
    counts = program.step()
    share = counts.matmul_cycles / counts.cycles if counts.cycles else None
    in_matmuls = counts.flops / target.flops[precision]
    in_memory = counts.bytes / target.bandwidth
    return {
        "target": name,
        "chip": target.chip,
        "model": model,
        "precision": precision,
        "batch_size": batch_size,
        "num_devices": len(devices),
        "num_processes": len({device.process_index for device in devices}),
        "compile_seconds": seconds,
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "num_params": work.num_params,
        "model_flops": 6 * work.macs * batch_size // len(devices),
        "kernels": counts.kernels,
        "flops": counts.flops,
        "bytes": counts.bytes,
        "all_reduces": counts.all_reduces,
        "all_reduce_bytes": counts.all_reduce_bytes,
        "library_calls": program.library_calls(),
        "cycles": counts.cycles or None,
        "matmul_share": share,
        "roofline_seconds": max(in_matmuls, in_memory),
        "is_memory_bound": in_memory > in_matmuls,
    }


def main(target: str, model: str, precision: str, batch_size: str) -> None:
    print(json.dumps(measure(target, model, precision, int(batch_size))))


if __name__ == "__main__":
    main(*sys.argv[1:])
