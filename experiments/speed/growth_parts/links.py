"""How long an all-reduce takes between chips, by what is published of their links.

All is at best: nothing else is sent, and no chip is late.
"""

import math
from typing import NamedTuple

# Of one H100 in one direction: NVLink 4 to the others of its host of eight (NVIDIA H100
# data sheet, 900 GB/s both ways) and a port of 400 Gb/s to other hosts (DGX H100).
_GPUS_PER_HOST, _NVLINK, _PORT = 8, 450e9, 50e9


class Protocol(NamedTuple):
    """One of NCCL's, for trees: seconds, and the share of the bandwidth that is data.

    Numbers of NCCL's own model of itself, src/graph/tuning.cc.
    """

    base: float
    in_host: float  # per step
    between_hosts: float
    share: float


_PROTOCOLS = (
    Protocol(6.8e-6, 0.6e-6, 5.0e-6, 1 / 3.8),
    Protocol(14.0e-6, 1.25e-6, 8.5e-6, 0.915),
)

# Of TPU v5e, a torus of 16 x 16: a link both ways, and a hop, by "How to Scale Your
# Model" (jax-ml.github.io/scaling-book). Between pods of 256 chips: 6.4 Tb/s of the
# data center network for each (cloud.google.com/tpu/docs/v5e); of its latency nothing
# is published, and a round is taken for 20 microseconds.
_PER_POD, _ICI_LINK, _ICI_HOP = 256, 90e9, 1e-6
_POD_BANDWIDTH, _POD_ROUND = 0.8e12, 20e-6


def gpu_all_reduce(num_bytes: float, num_chips: int) -> float:
    """Seconds between H100s, in hosts of eight, by the better of NCCL's protocols."""
    if num_chips == 1:
        return 0.0
    per_host = min(num_chips, _GPUS_PER_HOST)
    rounds = math.ceil(math.log2(num_chips / per_host))
    bandwidth = _PORT * per_host if rounds else _NVLINK
    return min(
        x.base
        + 2 * ((per_host - 1) * x.in_host + rounds * x.between_hosts)
        + 2 * num_bytes / (bandwidth * x.share)
        for x in _PROTOCOLS
    )


def tpu_all_reduce(num_bytes: float, num_chips: int) -> float:
    """Seconds between TPU v5e chips, by rings along both axes of the torus.

    As if the rings were closed, which those of slices of fewer than 16 chips are not.
    """
    in_pod = min(num_chips, _PER_POD)
    short = 2 ** (int(math.log2(in_pod)) // 2)
    sides = [side for side in (short, in_pod // short) if side > 1]
    seconds = 0.0
    if sides:
        # There and back, each half of the ring in one of both directions.
        seconds += sum(sides) * _ICI_HOP
        seconds += 2 * (1 - 1 / in_pod) * num_bytes / (_ICI_LINK * len(sides))
    pods = num_chips / in_pod
    if pods > 1:
        seconds += 2 * math.ceil(math.log2(pods)) * _POD_ROUND
        seconds += 2 * (1 - 1 / pods) * num_bytes / _POD_BANDWIDTH
    return seconds


ALL_REDUCE = {"h100:1": gpu_all_reduce, "v5e:2x2": tpu_all_reduce}
