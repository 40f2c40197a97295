"""Mixed precision (Micikevicius et al., 2018): matmuls and convolutions take their
operands in a narrower type and add up in float32; all else is float32.

An array that waits for its matmul is stored narrow where it is made. As bfloat16 it
would be turned to float32 and back at each write into a loop's array, the whole array
each time, by XLA's CPU compiler, which has no other bfloat16 arithmetic; so it is kept
as its bits. Everywhere else this costs nothing.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

Array = jax.Array


def is_mixed(dtype: jnp.dtype) -> bool:
    """Whether operands of this type are narrower than the sums."""
    return jnp.dtype(dtype) == jnp.bfloat16


def operand(x: Array, dtype: jnp.dtype) -> Array:
    """float32 -> itself for dtype float32; bfloat16 for that."""
    return x.astype(dtype) if is_mixed(dtype) else x


def store(x: Array, dtype: jnp.dtype) -> Array:
    """`operand`, and of bfloat16 the bits, uint16."""
    if not is_mixed(dtype):
        return x
    return jax.lax.bitcast_convert_type(operand(x, dtype), jnp.uint16)


def load(stored: Array) -> Array:
    """What `store` made of an array, as an operand of `matmul`."""
    if stored.dtype != jnp.uint16:
        return stored
    return jax.lax.bitcast_convert_type(stored, jnp.bfloat16)


def load_float(stored: Array) -> Array:
    """What `store` made of an array, for arithmetic: bfloat16 as float32."""
    loaded = load(stored)
    return loaded.astype(jnp.float32) if is_mixed(loaded.dtype) else loaded


def matmul(a: Array, b: Array) -> Array:
    """As `jnp.matmul`; bfloat16 operands are added up, and returned, in float32."""
    return _product(jnp.matmul, a, b)


def matmul_transposed(a: Array, b: Array) -> Array:
    """`matmul(a, b.T)` of two matrices, without a transposed copy of b."""
    dims = (((1,), (1,)), ((), ()))
    product = functools.partial(jax.lax.dot_general, dimension_numbers=dims)
    return _product(product, a, b)


def _product(product: Callable[..., Array], a: Array, b: Array) -> Array:
    """`product`, with bfloat16 operands as XLA's CPU compiler can take them.

    It has narrow matmuls but none whose left side is to be transposed. It would make
    such of transposes before and after the product, and then find no code for them:
    the barriers keep these out.
    """
    if not is_mixed(a.dtype):
        return product(a, b)
    narrow = functools.partial(product, preferred_element_type=jnp.float32)

    def on_cpu(*operands):
        bits = tuple(store(x, x.dtype) for x in operands)
        bits = jax.lax.optimization_barrier(bits)
        return jax.lax.optimization_barrier(narrow(*map(load, bits)))

    return jax.lax.platform_dependent(a, b, cpu=on_cpu, default=narrow)
