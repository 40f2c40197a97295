"""Arrays onto devices and back, in the layouts that the programs take."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

AXIS = "batch"


def local_devices(devices: Sequence[jax.Device]) -> list[jax.Device]:
    """Those that belong to this process."""
    return [d for d in devices if d.process_index == jax.process_index()]


def replicate(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """Places a copy of every array on every device."""
    return _place(tree, devices, jax.sharding.PartitionSpec())


def distribute(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """Places arrays [D, ..], a part of the first axis on each of D devices."""
    return _place(tree, devices, jax.sharding.PartitionSpec(AXIS))


def distribute_local(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """`distribute` of arrays [d, ..], a part for each of this process's d devices."""
    if len(local_devices(devices)) < len(devices):
        return tree  # pmap takes each process's own part from the host
    return distribute(tree, devices)


def _place(tree, devices, spec):
    mesh = jax.sharding.Mesh(np.array(devices), (AXIS,))
    sharding = jax.sharding.NamedSharding(mesh, spec)
    if len(local_devices(devices)) == len(devices):
        return jax.device_put(tree, sharding)

    def place(x):
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda part: x[part])

    # `device_put` would first compare what all processes have.
    return jax.tree.map(place, tree)


def shard_order(order: np.ndarray, num_devices: int) -> np.ndarray:
    """Shards global batches: int32 [S, B] -> [D, S, B / D]."""
    num_steps, batch_size = order.shape
    parts = order.reshape(num_steps, num_devices, batch_size // num_devices)
    return np.ascontiguousarray(parts.swapaxes(0, 1))


def local_shard(parts: np.ndarray, devices: Sequence[jax.Device]) -> np.ndarray:
    """Of arrays [D, ..], one for each device: those of this process's devices."""
    return parts[[d.process_index == jax.process_index() for d in devices]]


def shard_members(tree: Any, num_devices: int) -> Any:
    """Members of vectorized runs onto devices: arrays [M, ..] -> [D, m, ..].

    The last member is repeated where M does not divide.
    """

    def shard(x):
        x = np.asarray(x)
        num_places = -(-len(x) // num_devices) * num_devices
        indices = np.minimum(np.arange(num_places), len(x) - 1)
        return x[indices].reshape(num_devices, -1, *x.shape[1:])

    return jax.tree.map(shard, tree)


def gather_members(tree: Any, num_members: int) -> Any:
    """The inverse: arrays [D, m, ..] on devices -> [M, ..] on the host."""
    return jax.tree.map(
        lambda x: np.asarray(x).reshape(-1, *x.shape[2:])[:num_members], tree
    )
