"""Random numbers that need not be beyond prediction, at little cost."""

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

_BYTES = 4  # that a word has
_STD_OF_BYTES = np.sqrt(_BYTES * (256**2 - 1) / 12)  # of the sum of uniform bytes


def random_bits(keys: Array, count: int) -> Array:
    """uint32 [B, count], so many of each of the PRNG keys [B].

    JAX's generator would take a tenth of a step. A Weyl sequence from the key's first
    word (Steele et al., "Fast Splittable Pseudorandom Number Generators", 2014) goes
    through an integer hash (Wellons, "Prospecting for Hash Functions", 2018) with its
    second in the middle.
    """
    words = jax.random.key_data(keys)
    first, second = words[:, :1], words[:, 1:2]
    x = first + jnp.arange(count, dtype=jnp.uint32) * np.uint32(0x9E3779B9)
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15) ^ second) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)


def nearly_normal(keys: Array, count: int) -> Array:
    """float32 [B, count] of mean 0 and variance 1, within 3.5 standard deviations.

    Sums of four uniform bytes: the normal distribution's own inverse takes half of the
    time of an elastic deformation.
    """
    bits = random_bits(keys, count)
    total = sum((bits >> 8 * i & 255).astype(jnp.float32) for i in range(_BYTES))
    return (total - _BYTES * 127.5) / _STD_OF_BYTES
