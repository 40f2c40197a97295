"""One recurrence over time, of any cell, with its own gradient, for GPUs and TPUs.

The same arithmetic as `time_scan.py`, which is made for the caches and the compiler of
CPUs, in as few kernels per time step as there can be: a matmul, what is done at the
gates, and one write. So all that the backward scan needs of a step is one array, and
time is the first axis of what the scans read and write: a step's part is one block of
memory, and a whole number of a TPU's tiles.

Shapes: T time steps, B images, F features, H units, k gates, n sums at gates.
"""

from typing import Any

import jax
import jax.numpy as jnp

from mnist_jax.ops.cells import Carry, Cell, Weights
from mnist_jax.ops.precision import is_mixed, operand

Array = jax.Array

_UNROLL = 4  # time steps; the loop's counter is a kernel of its own


def forward(
    cell: Cell,
    last_only: bool,
    dtype: jnp.dtype,
    inputs: Array,
    weights: Weights,
    carry: Carry,
    for_gradient: bool = True,
) -> tuple[tuple[Array | None, Carry], Any]:
    """See `time_scan.forward`."""
    num_units, batch_size = len(weights.recurrent_kernel), inputs.shape[1]
    projected = _contract("fg,tbf->tgb", weights.input_kernel, inputs, dtype)
    projected += weights.bias[:, None]
    projected = projected.reshape(len(inputs), -1, num_units, batch_size)
    kernel = operand(weights.recurrent_kernel, dtype)

    def step(carry, projected):
        hidden = _contract("hg,hb->gb", kernel, carry[0], dtype)
        hidden = hidden.reshape(projected.shape)
        sums = projected + hidden
        if cell.own_input:
            candidate = hidden[-1:] + weights.hidden_bias[:, None]
            sums = jnp.concatenate([sums[:-1], candidate, projected[-1:]])
        new_carry, factors, kept = cell.forward(carry, sums)
        saved = None
        if for_gradient:
            saved = operand(jnp.stack([new_carry[0], *factors, *kept]), dtype)
        return new_carry, (saved, None if last_only else new_carry[0])

    first = carry
    carry, (saved, outputs) = jax.lax.scan(step, carry, projected, unroll=_UNROLL)
    outputs = None if last_only else outputs.swapaxes(1, 2)
    return (outputs, carry), (saved, inputs, weights, first[0])


def backward(
    cell: Cell,
    dtype: jnp.dtype,
    residuals: Any,
    grads: tuple[Array | None, Carry],
) -> tuple[Array, Weights, Carry]:
    """See `time_scan.backward`."""
    saved, inputs, weights, first = residuals
    at_outputs, carry = grads
    num_gates, num_units = weights.num_gates, len(weights.recurrent_kernel)
    num_sums = num_gates + cell.own_input
    batch_size = inputs.shape[1]
    # Zeros where a sum has no part of h: the product takes all gates as they are.
    padding = (num_sums - num_gates) * num_units
    kernel = operand(jnp.pad(weights.recurrent_kernel, ((0, 0), (0, padding))), dtype)

    def through_h(carry, gates):
        dh = _contract("hg,gb->hb", kernel, gates.reshape(-1, batch_size), dtype)
        return (carry[0] + dh, *carry[1:])

    def step(loop, xs):
        saved, dh = xs
        carry = through_h(*loop)
        if dh is not None:
            carry = (carry[0] + dh.T, *carry[1:])
        saved = saved.astype(inputs.dtype)
        factors, kept = saved[1 : 1 + num_sums], tuple(saved[1 + num_sums :])
        multiplier, carry = cell.backward(carry, kept)
        gates = operand(factors * multiplier, dtype)
        # Of h nothing but what comes through the sums may be left: 0.
        carry = tuple(jnp.broadcast_to(x, zeros.shape) for x in carry)
        return (carry, gates), gates

    zeros = jnp.zeros((num_units, batch_size), inputs.dtype)
    gates = jnp.zeros((num_sums, num_units, batch_size), saved.dtype)
    loop, gates = jax.lax.scan(
        step, (carry, gates), (saved, at_outputs), reverse=True, unroll=_UNROLL
    )
    carry = through_h(*loop)

    def side_by_side(gates):  # [T, k, H, B] -> [T, k H, B]
        return gates.reshape(len(gates), -1, batch_size)

    of_hidden, hidden_bias = side_by_side(gates[:, :num_gates]), None
    of_input = of_hidden
    if cell.own_input:
        last = of_hidden[:, -num_units:]
        hidden_bias = last.sum((0, 2), dtype=inputs.dtype)
        others = [gates[:, : num_gates - 1], gates[:, num_gates:]]
        of_input = side_by_side(jnp.concatenate(others, axis=1))
    before = jnp.concatenate([operand(first, dtype)[None], saved[:-1, 0]])
    weight_grads = Weights(
        _contract("tbf,tgb->fg", inputs, of_input, dtype),
        _contract("thb,tgb->hg", before, of_hidden, dtype),
        of_input.sum((0, 2), dtype=inputs.dtype),
        hidden_bias,
    )
    at_inputs = _contract("fg,tgb->tbf", weights.input_kernel, of_input, dtype)
    return at_inputs, weight_grads, carry


def _contract(subscripts: str, a: Array, b: Array, dtype: jnp.dtype) -> Array:
    """An einsum; of bfloat16 operands it is added up, and returned, in float32."""
    narrow = jnp.float32 if is_mixed(dtype) else None
    a, b = operand(a, dtype), operand(b, dtype)
    return jnp.einsum(subscripts, a, b, preferred_element_type=narrow)
