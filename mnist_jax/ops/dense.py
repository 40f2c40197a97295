"""The matmul of a dense layer."""

import functools

import jax
import jax.numpy as jnp

from mnist_jax.ops.precision import (
    is_mixed,
    load,
    matmul,
    matmul_transposed,
    operand,
    store,
)

Array = jax.Array


def dense(x: Array, kernel: Array, dtype: jnp.dtype = jnp.float32) -> Array:
    """x W^T, with one row of W for each unit.

    Args:
      x: float32 [.., I].
      kernel: W, float32 [U, I].
      dtype: of the matmuls' operands, see `precision.py`.

    Returns:
      float32 [.., U].
    """
    if not is_mixed(dtype):
        return jnp.einsum("...i,ui->...u", x, kernel)
    outputs = _mixed(dtype, x.reshape(-1, x.shape[-1]), kernel)
    return outputs.reshape(*x.shape[:-1], -1)


def dense_first(x: Array, kernel: Array, dtype: jnp.dtype = jnp.float32) -> Array:
    """W x over the first axis, which has the features.

    Args:
      x: float32 [I, ..].
      kernel: W, float32 [U, I].
      dtype: of the matmuls' operands, see `precision.py`.

    Returns:
      float32 [U, ..].
    """
    flat = x.reshape(len(x), -1)
    outputs = _mixed_first(dtype, flat, kernel) if is_mixed(dtype) else kernel @ flat
    return outputs.reshape(-1, *x.shape[1:])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _mixed(dtype, x, kernel):
    return _mixed_forward(dtype, x, kernel)[0]


def _mixed_forward(dtype, x, kernel):
    x, kernel = store(x, dtype), store(kernel, dtype)
    return matmul_transposed(load(x), load(kernel)), (x, kernel)


def _mixed_backward(dtype, saved, grads):
    x, kernel = map(load, saved)
    at_kernel = matmul(operand(grads.T, dtype), x)
    return matmul(operand(grads, dtype), kernel), at_kernel


_mixed.defvjp(_mixed_forward, _mixed_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _mixed_first(dtype, x, kernel):
    return _mixed_first_forward(dtype, x, kernel)[0]


def _mixed_first_forward(dtype, x, kernel):
    x, kernel = store(x, dtype), store(kernel, dtype)
    return matmul(load(kernel), load(x)), (x, kernel)


def _mixed_first_backward(dtype, saved, grads):
    x, kernel = map(load, saved)
    grads = operand(grads, dtype)
    return matmul(kernel.T, grads), matmul_transposed(grads, x)


_mixed_first.defvjp(_mixed_first_forward, _mixed_first_backward)
