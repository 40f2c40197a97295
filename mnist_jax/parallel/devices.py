"""The devices of a run: how many there are, and how many it is worth using."""

import collections
import os
from collections.abc import Sequence
from typing import Any

import jax

from mnist_jax.config import ConfigError
from mnist_jax.cost import Work
from mnist_jax.ops.platform import on_cpu
from mnist_jax.parallel import processes
from mnist_jax.parallel.canaries import check_arithmetic
from mnist_jax.parallel.chunks import local_devices

# A step on several devices is worth the exchange of gradients, which takes as long as
# about so many multiplications forward, plus so many per parameter, on each device.
# Measured on CPU with one device per core: mlp, rnn and cnn at batches of 32 to 1,024.
_EXCHANGE, _EXCHANGE_PER_PARAMETER = 2_000_000, 300
_MIN_IMAGES_PER_DEVICE = 8  # with fewer, products are too thin
# What the forward pass keeps of so many images stays in a core's cache until the
# backward pass wants it. Measured on cnn, rnn, gru and lstm at batches of 32 to 2,048
# per device; a model that uses each parameter about once per image keeps little, and
# is better off with wide products.
_IMAGES_IN_CACHE, _LEAST_USES = 64, 4


def start(
    num_devices: int = 0,
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Gives JAX its devices; call it before JAX's first use.

    On CPU these are virtual, one per core: each working alone on its part of the batch
    is faster than one device that spreads every small product over all cores. XLA_FLAGS
    may set another number.

    Args:
      num_devices: how many to make on CPU; 0 for one per core that this process may
        use.
      coordinator_address, num_processes, process_id: see `processes.join`.

    Raises:
      ConfigError: there is no device, or see `processes.join`.
      ProcessError: processes have different numbers of devices; see `processes.join`.
      RuntimeError: JAX was used before.
    """
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", num_devices or count_cores())
    processes.join(coordinator_address, num_processes, process_id)
    try:
        devices = jax.devices()
    except (AssertionError, RuntimeError) as error:
        raise ConfigError(
            f"JAX_PLATFORMS={jax.config.jax_platforms}: JAX finds no such device "
            f"({' '.join(str(error).split())[:160]}): install what it needs, as in "
            "pip install -e '.[cuda]', or leave JAX_PLATFORMS unset"
        ) from error
    counts = collections.Counter(device.process_index for device in devices)
    if len(set(counts.values())) > 1:
        numbers = ", ".join(str(counts[number]) for number in sorted(counts))
        raise processes.ProcessError(
            f"the processes have {numbers} devices: expected as many in each; set "
            "XLA_FLAGS=--xla_force_host_platform_device_count, or the visible devices, "
            "alike"
        )


def count_cores() -> int:
    """Cores that this process may use."""
    has_affinity = hasattr(os, "sched_getaffinity")  # not on macOS
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count()


def least_images(work: Work) -> int:
    """Images of each batch that a device needs to be worth the exchange."""
    exchange = _EXCHANGE + _EXCHANGE_PER_PARAMETER * work.num_params
    return max(_MIN_IMAGES_PER_DEVICE, -(-exchange // work.multiplications))


def most_at_once(work: Work) -> int | None:
    """Images that a device takes at a time in training; None for its whole batch."""
    if not on_cpu() or work.multiplications < _LEAST_USES * work.num_params:
        return None
    return _IMAGES_IN_CACHE


def choose_devices(
    num_devices: int,
    batch_size: int | None = None,
    least_images: int = _MIN_IMAGES_PER_DEVICE,
) -> list[jax.Device]:
    """The devices for a run.

    Args:
      num_devices: how many; 0 for all, or for the most that divide the batch and
        leave each device enough images to be worth it.
      batch_size: images in a global batch; None where there is no such thing.
      least_images: enough images, see the function of that name.

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
            most = max(num_processes, min(num_devices, batch_size // least_images))
            choices = range(num_processes, most + 1, num_processes)
            num_devices = max(
                (n for n in choices if batch_size % n == 0), default=num_processes
            )
    if batch_size is not None and batch_size % num_devices:
        raise ConfigError(
            f"--batch_size={batch_size} does not divide over --num_devices="
            f"{num_devices}: give a multiple of {num_devices}"
        )
    own = num_devices // num_processes
    chosen = [
        device
        for number in range(num_processes)
        for device in [d for d in devices if d.process_index == number][:own]
    ]
    check_arithmetic(local_devices(chosen))
    return chosen


def describe(devices: Sequence[jax.Device]) -> dict[str, Any]:
    """What a run's record says of its devices."""
    return {
        "platform": devices[0].platform,
        "kind": devices[0].device_kind,
        "num_devices": len(devices),
        "num_processes": jax.process_count(),
    }
