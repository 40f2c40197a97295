"""One recurrence over time, of any cell, with its own gradient.

Four things make it fast. The inputs of all time steps are projected before the
scan, which is left with one matmul of the state for all gates. The gradients of the
kernels are one large matmul after the backward scan, where automatic differentiation
would add up small ones per step (Appleyard et al., "Optimizing Performance of
Recurrent Neural Networks on GPUs", 2016, describes both for cuDNN). Inside, features
come first and images last, [H, B]: the gates of a matmul lie one after the other, so
that splitting them moves nothing. And one stack [n, H, T, B] lives through both
scans: it holds the projected inputs; the forward scan puts in their place the factors
by which gradients will reach them, so that the backward scan only multiplies.

With bfloat16 operands each step projects its own inputs, in one matmul with the state,
and the stack holds the factors alone. It is stored narrow, as all is that waits for the
backward scan; the states between steps, the sums at the gates and gradients that add up
stay in float32.

Shapes: T time steps, B images, F features, H units, k gates. The carry is the cell's,
of arrays [H, B]. Kernels and biases of the gates lie side by side in the order in which
the equations name the gates.
"""

from typing import Any

import jax
import jax.numpy as jnp

from mnist_jax.ops.cells import Carry, Cell, Weights, joint_kernel
from mnist_jax.ops.precision import (
    is_mixed,
    load,
    load_float,
    matmul,
    matmul_transposed,
    operand,
    store,
)

Array = jax.Array

_MULTIPLE = 32  # rows that bfloat16 matmuls of CPUs take at a time


def forward(
    cell: Cell,
    last_only: bool,
    dtype: jnp.dtype,
    inputs: Array,
    weights: Weights,
    carry: Carry,
    for_gradient: bool = True,
) -> tuple[tuple[Array | None, Carry], Any]:
    """All time steps from `carry` on.

    Args:
      cell: in `cells.py`.
      last_only: whether the outputs are left out.
      dtype: of the matmuls' operands, see `precision.py`.
      inputs: float32 [T, B, F].
      weights: of the gates.
      carry: before the first step.
      for_gradient: whether to keep what `backward` needs.

    Returns:
      The hidden states [T, B, H] or None, with the last carry; and what is kept.
    """
    num_steps, batch_size, num_features = inputs.shape
    num_units = len(weights.recurrent_kernel)
    shape = (num_units, num_steps, batch_size)
    # What the kernels multiply: h, to be filled in, then x, and 1 for the biases.
    padding = -(num_features + 1) % _MULTIPLE if is_mixed(dtype) else 0
    rows = [
        jnp.zeros(shape),
        inputs.transpose(2, 0, 1),
        jnp.ones((1, *shape[1:])),
        jnp.zeros((padding, *shape[1:])),
    ]
    rows = store(jnp.concatenate(rows).astype(inputs.dtype), dtype)
    own = jnp.zeros((1, *shape), rows.dtype) if cell.own_input else None
    if is_mixed(dtype):
        # Narrow matmuls are so fast that x W is cheaper to have in each step than to
        # write and read.
        kernel = jnp.pad(joint_kernel(cell, weights), ((0, padding), (0, 0)))
        kernel = operand(kernel.T, dtype)
        stack = jnp.zeros((weights.num_gates, *shape), rows.dtype)
    else:
        kernel = weights.recurrent_kernel.T
        input_kernel = jnp.concatenate([weights.input_kernel, weights.bias[None]]).T
        stack = input_kernel @ rows[num_units:].reshape(num_features + 1, -1)
        stack = stack.reshape(-1, *shape)

    def sums_at(t, h, rows, stack):
        if is_mixed(dtype):
            sums = matmul(kernel, load(_read(rows, t))[:, 0])
            return sums.reshape(-1, num_units, batch_size)
        hidden = (kernel @ h).reshape(-1, num_units, batch_size)
        if not cell.own_input:
            return _read(stack, t)[:, :, 0] + hidden
        projected = [_read_gate(stack, gate, t) for gate in range(len(stack))]
        candidate = hidden[-1] + weights.hidden_bias[:, None]
        alike = [x + y for x, y in zip(projected[:-1], hidden[:-1], strict=True)]
        return (*alike, candidate, projected[-1])

    def step(loop, t):
        carry, rows, stack, own = loop
        rows = _write(rows, t, store(carry[0], dtype)[:, None])
        sums = sums_at(t, carry[0], rows, stack)
        carry, factors, kept = cell.forward(carry, sums)
        output = None if last_only else carry[0]
        if not for_gradient:
            return (carry, rows, stack, own), (None, output)
        factors = [store(x, dtype)[None, :, None] for x in factors]
        for i, factor in enumerate(factors[: len(stack)]):
            stack = _write(stack, t, factor, i)
        if cell.own_input:
            own = _write(own, t, factors[-1])
        kept = tuple(store(x, dtype) for x in kept)
        return (carry, rows, stack, own), (kept, output)

    loop = (carry, rows, stack, own)
    loop, (kept, outputs) = jax.lax.scan(step, loop, jnp.arange(num_steps))
    carry, rows, stack, own = loop
    outputs = None if last_only else outputs.swapaxes(1, 2)
    return (outputs, carry), (rows, stack, own, kept, weights)


def backward(
    cell: Cell,
    dtype: jnp.dtype,
    saved: Any,
    grads: tuple[Array | None, Carry],
) -> tuple[Array, Weights, Carry]:
    """The gradients of inputs, weights and the first carry, by those of the results."""
    at_outputs, carry = grads
    rows, stack, own, kept, weights = saved
    num_gates, num_units, num_steps, batch_size = stack.shape
    num_features = len(weights.input_kernel)
    # One matmul for each gate where they are narrow: XLA has these faster on CPU.
    split = num_gates if is_mixed(dtype) else 1
    kernel = weights.recurrent_kernel.reshape(num_units, split, -1)
    kernel = operand(kernel.swapaxes(0, 1), dtype)

    def step(loop, xs):
        carry, stack, own = loop
        t, kept, dh = xs
        if dh is not None:
            carry = (carry[0] + dh.T, *carry[1:])
        multiplier, carry = cell.backward(carry, tuple(load_float(x) for x in kept))
        # In the stack's own shape: XLA would copy it to change shapes on the way.
        multiplier = jnp.expand_dims(multiplier, -2)
        at_gates = load_float(_read(stack, t)) * multiplier
        stack = _write(stack, t, store(at_gates, dtype))
        # Read again what was written: XLA would copy the stack to keep both.
        gates = load(_read(stack, t)).reshape(split, -1, batch_size)
        if cell.own_input:
            at_own = load_float(_read(own, t)) * multiplier
            own = _write(own, t, store(at_own, dtype))
        through_h = matmul(kernel, gates).sum(0)
        return ((carry[0] + through_h, *carry[1:]), stack, own), None

    xs = (jnp.arange(num_steps), kept, at_outputs)
    loop = (carry, stack, own)
    (carry, stack, own), _ = jax.lax.scan(step, loop, xs, reverse=True)

    def flat(array):  # [n, H, T, B] -> [n H, T B]
        return load(array.reshape(len(array) * array.shape[1], -1))

    rows = load(rows.reshape(len(rows), -1))
    sums = matmul_transposed(rows, flat(stack))
    of_hidden = sums[:num_units]
    of_input = sums[num_units : num_units + num_features + 1]
    hidden_bias = None
    gates = flat(stack)
    if cell.own_input:
        hidden_bias = of_input[-1, -num_units:]
        of_own = matmul_transposed(rows[num_units:], flat(own))
        of_own = of_own[: num_features + 1]
        of_input = jnp.concatenate([of_input[:, :-num_units], of_own], axis=1)
        gates = jnp.concatenate([gates[:-num_units], flat(own)])
    at_inputs = matmul(operand(weights.input_kernel, dtype), gates)
    at_inputs = at_inputs.reshape(-1, num_steps, batch_size)
    weight_grads = Weights(of_input[:-1], of_hidden, of_input[-1], hidden_bias)
    return at_inputs.transpose(1, 2, 0), weight_grads, carry


def _read(stack: Array, t: Array) -> Array:
    """[.., 1, B], time step `t` of a stack [.., T, B]."""
    return jax.lax.dynamic_slice_in_dim(stack, t, 1, axis=-2)


def _read_gate(stack: Array, gate: int, t: Array) -> Array:
    """[H, B], time step `t` of one gate of a stack [n, H, T, B].

    One gate at a time: XLA does not vectorize, on CPU, a fusion that takes several
    slices of one `dynamic_slice`.
    """
    _, num_units, _, batch_size = stack.shape
    sizes = 1, num_units, 1, batch_size
    return jax.lax.dynamic_slice(stack, (gate, 0, t, 0), sizes)[0, :, 0]


def _write(stack: Array, t: Array, blocks: Array, first: int = 0) -> Array:
    """Puts blocks [m, .., 1, B] into time step `t` of a stack, from `first` on."""
    place = (first, *[0] * (stack.ndim - 3), t, 0)
    return jax.lax.dynamic_update_slice(stack, blocks, place)
