"""The devices of a run: how many there are, and how many it is worth using."""

import collections
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from absl import logging

from mnist_jax.flops import Work
from mnist_jax.parallel import multihost
from mnist_jax.parallel.arithmetic import check_arithmetic
from mnist_jax.parallel.placement import local_devices
from mnist_jax.settings import ConfigError

# On CPU a step on several devices is worth the all-reduce of its gradients, which takes
# as long as about so many MACs forward, plus so many per parameter, on each device.
# Measured on two cores, a device each: mlp, rnn and cnn at batches of 32 to 1,024.
_ALL_REDUCE_MACS, _ALL_REDUCE_MACS_PER_PARAM = 2_000_000, 300
_MIN_IMAGES_PER_CORE = 8  # with fewer, matmuls are too thin
# What the forward pass keeps of so many images stays in a core's cache until the
# backward pass wants it. Measured on cnn, rnn, gru and lstm at batches of 32 to 2,048
# per device; a model that uses each parameter about once per image keeps little, and
# is better off with wide matmuls.
_IMAGES_IN_CACHE, _MIN_USES_PER_PARAM = 64, 4
# For `jax.config.update`. GPUs and TPUs would else round operands of float32 matmuls to
# 10 or 7 bits; those of bfloat16 stay what they are.
EXACT_MATMULS = "jax_default_matmul_precision", "float32"
_CPU_INFO = Path("/proc/cpuinfo")
_MEMORY_LIMITS = (  # of a container, by cgroups of version 2 and of version 1
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
# As Linux names them: of x86 and, the last, of ARM.
_NARROW_INSTRUCTIONS = {"amx_bf16", "avx512_bf16", "bf16"}


def start(
    num_devices: int = 0,
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Gives JAX its devices; call it before JAX's first use.

    On CPU these are virtual, one per core: each working alone on its part of the batch
    is faster than one device that spreads every small matmul over all cores. XLA_FLAGS
    may set another number.

    Args:
      num_devices: how many to make on CPU; 0 for one per core that this process may
        use.
      coordinator_address, num_processes, process_id: see `multihost.initialize`.

    Raises:
      ConfigError: there is no device, or see `multihost.initialize`.
      ProcessError: processes have different numbers of devices; see
        `multihost.initialize`.
      RuntimeError: JAX was used before.
    """
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", num_devices or count_cores())
    multihost.initialize(coordinator_address, num_processes, process_id)
    try:
        devices = jax.devices()
    except (AssertionError, RuntimeError) as error:
        raise ConfigError(
            f"JAX_PLATFORMS={jax.config.jax_platforms}: JAX finds no such device "
            f"({' '.join(str(error).split())[:160]}): install what it needs, as in "
            "pip install -e '.[cuda]', or leave JAX_PLATFORMS unset"
        ) from error
    if not _is_cpu():
        jax.config.update(*EXACT_MATMULS)
    counts = collections.Counter(device.process_index for device in devices)
    if len(set(counts.values())) > 1:
        numbers = ", ".join(str(counts[number]) for number in sorted(counts))
        raise multihost.ProcessError(
            f"the processes have {numbers} devices: expected as many in each; set "
            "XLA_FLAGS=--xla_force_host_platform_device_count, or the visible devices, "
            "alike"
        )


def count_cores() -> int:
    """Cores that this process may use."""
    has_affinity = hasattr(os, "sched_getaffinity")  # not on macOS
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count()


def min_images_per_device(work: Work) -> int:
    """Images of each batch that a device needs to be worth the all-reduce.

    On CPU alone: accelerators of one host are all used.
    """
    if not _is_cpu():
        return 1
    macs = _ALL_REDUCE_MACS + _ALL_REDUCE_MACS_PER_PARAM * work.num_params
    return max(_MIN_IMAGES_PER_CORE, -(-macs // work.macs))


def microbatch_size(work: Work) -> int | None:
    """Images that a device takes at a time in training; None for its whole batch."""
    if not _is_cpu() or work.macs < _MIN_USES_PER_PARAM * work.num_params:
        return None
    return _IMAGES_IN_CACHE


def choose_devices(
    num_devices: int, batch_size: int | None = None, min_images: int = 1
) -> list[jax.Device]:
    """The devices for a run.

    Args:
      num_devices: how many; 0 for all, or for the most that divide the batch and
        leave each device `min_images` of it.
      batch_size: images in a global batch; None where there is no such thing.
      min_images: see `min_images_per_device`.

    Returns:
      Those of all processes, as many of each, process by process.

    Raises:
      ConfigError: there are not so many, or the batch does not divide.
      DeviceError: one of them calculates wrongly.
    """
    devices, num_processes = jax.devices(), jax.process_count()
    if num_devices > len(devices):
        where = f"these {num_processes} processes have" if num_processes > 1 else (
            "this machine has"
        )  # fmt: skip
        raise ConfigError(
            f"--num_devices={num_devices}: {where} {len(devices)} "
            f"({devices[0].platform}); give {len(devices)} or fewer"
        )
    if num_devices % num_processes:
        raise ConfigError(
            f"--num_devices={num_devices}: {num_processes} processes use as many "
            f"each; give a multiple of {num_processes}"
        )
    if num_devices == 0:
        num_devices = len(devices)
        if batch_size is not None:
            most = max(num_processes, min(num_devices, batch_size // min_images))
            choices = range(num_processes, most + 1, num_processes)
            num_devices = max(
                (n for n in choices if batch_size % n == 0), default=num_processes
            )
    if batch_size is not None and batch_size % num_devices:
        raise ConfigError(
            f"--batch_size={batch_size} does not divide over --num_devices="
            f"{num_devices}: give a multiple of {num_devices}"
        )
    per_process = num_devices // num_processes
    chosen = [
        device
        for number in range(num_processes)
        for device in [d for d in devices if d.process_index == number][:per_process]
    ]
    check_arithmetic(local_devices(chosen))
    return chosen


def are_large(num_bytes: int, devices: Sequence[jax.Device]) -> bool:
    """Whether so many bytes would take more than a quarter of a device's memory.

    Devices on CPU share the memory of their host.
    """
    local = local_devices(devices)
    memory = min((x.memory_stats() or {}).get("bytes_limit", 0) for x in local)
    if not memory:
        memory = _host_bytes() // len(local)
    return num_bytes > memory / 4


def _host_bytes() -> int:
    """Memory that this process may use, of the machine and of its container."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _MEMORY_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # 'max' is no limit
            limits.append(int(path.read_text()))
    return min(limits)


def warn_of_slow_precision(precision: str) -> None:
    """One line where this processor has no instructions for narrow matmuls.

    Args:
      precision: see `config.Config`.
    """
    if precision == "float32" or not _is_cpu():
        return
    try:
        lines = _CPU_INFO.read_text().splitlines()
    except OSError:
        return  # no Linux: nothing is known
    known = [x for x in lines if x.startswith(("flags", "Features"))]
    if known and not _NARROW_INSTRUCTIONS & set(known[0].split()):
        logging.warning(
            "--precision=%s: this processor has no instructions for it (%s), so that "
            "--precision=float32 is faster here",
            precision,
            ", ".join(sorted(_NARROW_INSTRUCTIONS)),
        )


def describe(devices: Sequence[jax.Device]) -> dict[str, Any]:
    """What a run's record says of its devices."""
    return {
        "platform": devices[0].platform,
        "kind": devices[0].device_kind,
        "num_devices": len(devices),
        "num_processes": jax.process_count(),
    }


def _is_cpu() -> bool:
    return jax.default_backend() == "cpu"
