"""What can be compiled for without owning it, and what its makers say that it does."""

import os
from typing import NamedTuple

from mnist_jax.config import ConfigError


class Target(NamedTuple):
    """Chips that one program is compiled for.

    Attributes:
      platform: 'tpu' or 'cuda'.
      topology: as `jax.experimental.topologies` takes it.
      chip: its name.
      flops: FLOP/s of matmuls of a device, by precision.
      bandwidth: bytes per second of a device's memory.
    """

    platform: str
    topology: str
    chip: str
    flops: dict[str, float]
    bandwidth: float


def _tpu(topology: str, chip: str, flops: float, bandwidth: float) -> Target:
    # A float32 product is six of bfloat16 parts (jax.lax.Precision.HIGHEST).
    by_precision = {"bfloat16": flops, "float32": flops / 6}
    return Target("tpu", topology, chip, by_precision, bandwidth)


# Of the SXM card, without sparsity: NVIDIA H100 Tensor Core GPU data sheet.
_H100 = {"bfloat16": 989e12, "float32": 67e12}

# TPUs: cloud.google.com/tpu/docs/v4, v5e and v6e, where a chip of v4 has two cores.
TARGETS = {
    "v4:2x2x1": _tpu("v4:2x2x1", "TPU v4", 275e12 / 2, 1228e9 / 2),
    "v5e:2x2": _tpu("v5e:2x2", "TPU v5e", 197e12, 819e9),
    "v5e:4x4": _tpu("v5e:4x4", "TPU v5e", 197e12, 819e9),
    "v6e:2x2": _tpu("v6e:2x2", "TPU v6e", 918e12, 1640e9),
    "h100:1": Target("cuda", "1x1x1", "NVIDIA H100", _H100, 3.35e12),
    "h100:8": Target("cuda", "1x1x8", "NVIDIA H100", _H100, 3.35e12),
}

# By platform: the modules that an interpreter has to have.
MODULES = {"tpu": "libtpu, mnist_jax", "cuda": "jax_cuda12_plugin, mnist_jax"}

# The card as XLA's GpuTargetConfigProto describes it.
H100_CONFIG = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132
  fpus_per_core: 128 block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
  block_dim_limit_z: 65535 memory_bandwidth: 3352320000000 l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: 84942979072
  shared_memory_per_block_optin: 232448 cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 }
runtime_version { major: 12 minor: 8 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def find(name: str) -> Target:
    """The target of that name.

    Raises:
      ConfigError: there is none.
    """
    if name not in TARGETS:
        raise ConfigError(f"--targets={name}: expected some of {', '.join(TARGETS)}")
    return TARGETS[name]


def environment() -> dict[str, str]:
    """Of a process that compiles: nothing asks for a device or for the network."""
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "TPU_WORKER_HOSTNAMES": "localhost",
        # Which kernel is fastest is measured on the card as a rule.
        "XLA_FLAGS": "--xla_gpu_autotune_level=0",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
