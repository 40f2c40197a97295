"""The machine's float32 matmul rate: the higher of NumPy's BLAS and XLA's."""

import time

import jax
import jax.numpy as jnp
import numpy as np

from experiments.speed.frameworks import protocol

_SIZE = 2048
_SECONDS = 0.5  # for each of the two


def build(task: protocol.Task) -> protocol.Benchmark:
    del task
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, _SIZE, _SIZE), np.float32)
    on_device = jnp.asarray(a), jnp.asarray(b)
    multiply = jax.jit(jnp.matmul)
    multiply(*on_device).block_until_ready()

    def run_epoch():
        began = time.perf_counter()
        by_numpy = best_rate(lambda: np.matmul(a, b))
        by_xla = best_rate(lambda: multiply(*on_device).block_until_ready())
        return {
            "seconds": time.perf_counter() - began,
            "gflops": max(by_numpy, by_xla),
            "numpy_gflops": by_numpy,
            "xla_gflops": by_xla,
        }

    return protocol.Benchmark(
        run_epoch=run_epoch,
        versions={"jax": jax.__version__, "numpy": np.__version__},
    )


def best_rate(multiply) -> float:
    """GFLOP/s of the fastest of the matmuls that fit into `_SECONDS`."""
    times = []
    while sum(times) < _SECONDS:
        began = time.perf_counter()
        multiply()
        times.append(time.perf_counter() - began)
    return 2 * _SIZE**3 / min(times) / 1e9


if __name__ == "__main__":
    protocol.serve(build)
