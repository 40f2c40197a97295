"""Steps on several CPU devices beside what their parts make together."""

import concurrent.futures
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

from experiments.common import machine
from mnist_jax.errors import UserError
from mnist_jax.parallel import devices
from mnist_jax.settings import ConfigError

_MODULE = "experiments.speed.growth_parts.measurement"
_GROUPS = ((1, 1), (2, 1), (4, 1), (8, 1), (2, 2), (4, 4))  # devices, processes
_MOST_DEVICES = 8
# One thread for a device, so that a core is a device's.
_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
}


def check_batch(batch_size: int) -> None:
    """Raises a ConfigError if it cannot be divided."""
    if batch_size % _MOST_DEVICES:
        raise ConfigError(
            f"--batch_size={batch_size}: expected a multiple of {_MOST_DEVICES}"
        )


def check(
    model: str,
    batch_size: int,
    seconds: float,
    say: Callable[[str], None],
    error: type[UserError],
) -> list[dict[str, Any]]:
    """A row for each number of devices and processes.

    Args:
      model: a name in `models.MODELS`.
      batch_size: images over all devices.
      seconds: of steps that are timed at once.
      say: takes what is done, a line.
      error: raised where a measurement fails.
    """

    def measure(share: int, *rest: Any) -> dict[str, Any]:
        command = [sys.executable, "-m", _MODULE, model, *map(str, (share, *rest))]
        env = {**os.environ, **_ENVIRONMENT}
        return machine.measure_in_process(command, (model, share, *rest), env, error)

    def measure_group(share: int, num_steps: int, num_processes: int) -> dict[str, Any]:
        address = f"127.0.0.1:{_free_port()}"
        with concurrent.futures.ThreadPoolExecutor(num_processes) as pool:
            found = pool.map(
                lambda i: measure(share, 1, num_steps, address, num_processes, i),
                range(num_processes),
            )
            return list(found)[0]

    rows, alone = [], {}
    for num_devices, num_processes in _GROUPS:
        share = batch_size // num_devices
        if share not in alone:
            first = measure(share, 1, 4)["step_seconds"]
            num_steps = round(seconds / first)
            if num_steps > 4:
                first = measure(share, 1, num_steps)["step_seconds"]
            alone[share] = first
        rounds = max(1, num_devices / devices.count_cores())
        num_steps = max(4, round(seconds / (rounds * alone[share])))
        if num_devices == 1:
            found = measure(share, 1, num_steps)
            all_reduce = 0.0
        elif num_processes == 1:
            found = measure(share, num_devices, num_steps)
            all_reduce = found["all_reduce_seconds"]
        else:
            found = measure_group(share, num_steps, num_processes)
            all_reduce = found["all_reduce_seconds"]
        predicted = rounds * alone[share] + all_reduce
        rows.append(
            {
                "model": model,
                "num_devices": num_devices,
                "num_processes": num_processes,
                "all_reduce_ms": 1e3 * all_reduce,
                "predicted_ms": 1e3 * predicted,
                "measured_ms": 1e3 * found["step_seconds"],
                "ratio": found["step_seconds"] / predicted,
            }
        )
        say(f"{model}: {num_devices} devices, {num_processes} processes")
    return rows


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
