"""Devices: the only folder that names devices, pmap or processes.

Data parallelism by `jax.pmap`: every device holds the whole data set and the same
state, and takes its own part of each global batch. The state carries no replica
axis (`in_axes=None`, `out_axes=None`), so what a run saves does not depend on how
many devices it used. Gradients are averaged in one place, `average`; the devices may
belong to several processes. Lanes are independent runs: each device trains its own.
"""

from mnist_jax.parallel.canaries import DeviceError, check_arithmetic
from mnist_jax.parallel.chunks import (
    AXIS,
    EVALUATION_BATCH,
    average,
    distribute,
    make_predict,
    make_train_chunk,
    own_part,
    replicate,
    split_order,
)
from mnist_jax.parallel.devices import (
    choose_devices,
    count_cores,
    describe,
    least_images,
    most_at_once,
    start,
)
from mnist_jax.parallel.lanes import (
    make_lane_chunk,
    make_lane_predict,
    spread_lanes,
)
from mnist_jax.parallel.processes import (
    ProcessError,
    agree,
    check_same,
    is_first,
    is_one_of_several,
    leave,
    lost_is_told,
    share,
    together,
)

__all__ = [
    "AXIS",
    "EVALUATION_BATCH",
    "DeviceError",
    "ProcessError",
    "agree",
    "average",
    "check_arithmetic",
    "check_same",
    "choose_devices",
    "count_cores",
    "describe",
    "distribute",
    "is_first",
    "is_one_of_several",
    "least_images",
    "leave",
    "lost_is_told",
    "make_lane_chunk",
    "make_lane_predict",
    "make_predict",
    "make_train_chunk",
    "most_at_once",
    "own_part",
    "replicate",
    "share",
    "split_order",
    "spread_lanes",
    "start",
    "together",
]
