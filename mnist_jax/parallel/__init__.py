"""Devices: the only folder that names devices, pmap or processes.

Data parallelism by `jax.pmap`: every device holds the whole data set and the same
state, and takes its own part of each global batch. The state carries no replica
axis (`in_axes=None`, `out_axes=None`), so what a run saves does not depend on how
many devices it used. Gradients are averaged in one place, `average`. Lanes are
independent runs: each device trains its own.
"""

from mnist_jax.parallel.chunks import (
    AXIS,
    EVALUATION_BATCH,
    average,
    distribute,
    make_predict,
    make_train_chunk,
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

__all__ = [
    "AXIS",
    "EVALUATION_BATCH",
    "average",
    "choose_devices",
    "count_cores",
    "describe",
    "distribute",
    "least_images",
    "make_lane_chunk",
    "make_lane_predict",
    "make_predict",
    "make_train_chunk",
    "most_at_once",
    "replicate",
    "split_order",
    "spread_lanes",
    "start",
]
