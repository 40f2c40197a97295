"""Canaries for the libraries underneath."""

import jax
import jax.numpy as jnp
import numpy as np


def test_jaxlib_sums_batched_products_right():
    # jaxlib 0.10.2 gives less for the last row on CPU, and raises no error:
    # https://github.com/jax-ml/jax/issues/39103. setup.py excludes it.
    count = np.arange(32_769, dtype=np.float32)
    rows = np.stack([count, 0 * count, 0 * count], axis=1)
    sums = jax.jit(jax.vmap(lambda row: jnp.sum((jnp.eye(3) @ row) ** 2)))(rows)
    assert float(sums[-1]) == 32_768.0**2 == 1_073_741_824
    np.testing.assert_allclose(sums, count.astype(np.float64) ** 2, rtol=1e-6)
