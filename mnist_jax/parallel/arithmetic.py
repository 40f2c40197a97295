"""A sum and a matmul with known results, before a run trusts its devices."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

from mnist_jax.errors import UserError
from mnist_jax.parallel.placement import replicate

Array = jax.Array

# jaxlib 0.10.2 on CPU gets the last of so many rows wrong, and raises no error:
# jax-ml/jax#39103.
_ROWS = 32_769
_SIDE = 64


class DeviceError(UserError):
    """A device that calculates wrongly."""


def check_arithmetic(devices: Sequence[jax.Device]) -> None:
    """Computes on each device what is known; once for the same devices.

    Args:
      devices: of this process.

    Raises:
      DeviceError: a result is wrong.
    """
    # Virtual CPU devices are one processor.
    is_cpu = devices[0].platform == "cpu"
    _check(tuple(devices[:1] if is_cpu else devices))


@functools.cache
def _check(devices: tuple[jax.Device, ...]) -> None:
    sums, matmul = jax.jit(compute)(*replicate(operands(), devices))
    true_sums, true_matmul = expected()
    for got in sums.addressable_shards:
        # So that NaN is off, too.
        off = ~(np.abs(np.asarray(got.data) - true_sums) <= 1e-6 * true_sums)
        if off.any():
            row = off.argmax()
            _refuse(got.device, f"a sum is {got.data[row]}, not {true_sums[row]}")
    for got in matmul.addressable_shards:
        # Whole numbers below 2^24, which float32 adds without rounding.
        off = np.sum(np.asarray(got.data) != true_matmul)
        if off:
            _refuse(got.device, f"{off} numbers of a matmul are wrong")


def compute(rows: Array, left: Array, right: Array) -> tuple[Array, Array]:
    """Sums of squares float32 [32769], by `vmap`, and a matmul float32 [64, 64]."""
    highest = jax.lax.Precision.HIGHEST  # accelerators round the operands else
    dot = functools.partial(jnp.matmul, precision=highest)
    eye = np.eye(3, dtype=np.float32)
    sums = jax.vmap(lambda row: jnp.sum(dot(eye, row) ** 2))(rows)
    return sums, dot(left, right)


def operands() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """float32 [32769, 3], [64, 64] and [64, 64]: whole numbers."""
    rows = np.zeros((_ROWS, 3), np.float32)
    rows[:, 0] = np.arange(_ROWS)
    numbers = np.arange(_SIDE * _SIDE).reshape(_SIDE, _SIDE)
    return rows, np.float32(numbers % 251), np.float32(numbers % 241 - 120)


def expected() -> tuple[np.ndarray, np.ndarray]:
    """What `compute` gives, by NumPy in float64, which is exact."""
    rows, left, right = (x.astype(np.float64) for x in operands())
    return (rows**2).sum(1), left @ right


def _refuse(device: jax.Device, what: str) -> None:
    raise DeviceError(
        f"{device.platform} device {device.id} calculates wrongly with jaxlib "
        f"{jaxlib.__version__}: {what}: install another version of jax and jaxlib "
        "(0.10.1 is correct, 0.10.2 is not), or use another device"
    )
