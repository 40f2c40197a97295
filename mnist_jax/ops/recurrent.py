"""Recurrences over time, with their own gradients.

Three functions, one for each cell of `cells.py`. `time_scan.py` runs them on CPU,
`plain_time_scan.py` elsewhere; `jax.lax.platform_dependent` decides at lowering.

What the backward pass reads of each time step is saved. With `remat_steps` the inputs
are, and the carry once in so many steps; what is between is recomputed, segment by
segment, in the backward pass (Chen et al., "Training Deep Nets with Sublinear Memory
Cost", 2016).
"""

import functools

import jax
import jax.numpy as jnp

from mnist_jax.ops import plain_time_scan, time_scan
from mnist_jax.ops.cells import GRU, LSTM, RNN, Cell, Weights

__all__ = ["Weights", "gru", "lstm", "rnn"]

Array = jax.Array


def rnn(
    inputs: Array,
    weights: Weights,
    *,
    last_only: bool,
    dtype: jnp.dtype = jnp.float32,
    remat_steps: int = 0,
) -> Array:
    """Simple recurrent network (Elman, 1990): h' = tanh(x W + h U + b).

    Args:
      inputs: x, float32 [T, B, F].
      weights: k = 1.
      last_only: whether to return only the last hidden state.
      dtype: of the matmuls' operands, see `precision.py`.
      remat_steps: time steps between saved carries; 0, or T and more, saves all steps.

    Returns:
      float32 [B, H] if `last_only`, else [T, B, H].
    """
    return _recurrence(RNN, last_only, dtype, remat_steps, inputs, weights)


def lstm(
    inputs: Array,
    weights: Weights,
    *,
    last_only: bool,
    dtype: jnp.dtype = jnp.float32,
    remat_steps: int = 0,
) -> Array:
    """Long short-term memory (Hochreiter and Schmidhuber, 1997; Gers et al., 2000).

    i, f, o = sigmoid(x W + h U + b), g = tanh(x W + h U + b), each with its own part
    of the weights, in the order i, f, g, o; c' = f c + i g; h' = o tanh(c').

    Args:
      inputs: x, float32 [T, B, F].
      weights: k = 4.
      last_only: whether to return only the last hidden state.
      dtype: of the matmuls' operands, see `precision.py`.
      remat_steps: time steps between saved carries; 0, or T and more, saves all steps.

    Returns:
      float32 [B, H] if `last_only`, else [T, B, H].
    """
    return _recurrence(LSTM, last_only, dtype, remat_steps, inputs, weights)


def gru(
    inputs: Array,
    weights: Weights,
    *,
    last_only: bool,
    dtype: jnp.dtype = jnp.float32,
    remat_steps: int = 0,
) -> Array:
    """Gated recurrent unit (Cho et al., 2014), reset gate after the matmul.

    r, z = sigmoid(x W + h U + b), n = tanh(x W + b + r (h U + c)), each with its own
    part of the weights, in the order r, z, n; h' = (1 - z) n + z h.

    Args:
      inputs: x, float32 [T, B, F].
      weights: k = 3, with hidden_bias.
      last_only: whether to return only the last hidden state.
      dtype: of the matmuls' operands, see `precision.py`.
      remat_steps: time steps between saved carries; 0, or T and more, saves all steps.

    Returns:
      float32 [B, H] if `last_only`, else [T, B, H].
    """
    return _recurrence(GRU, last_only, dtype, remat_steps, inputs, weights)


def _recurrence(
    cell: Cell,
    last_only: bool,
    dtype: jnp.dtype,
    remat_steps: int,
    inputs: Array,
    weights: Weights,
) -> Array:
    def run(form, inputs, weights):
        steps = remat_steps if 0 < remat_steps < len(inputs) else 0
        shape = len(weights.recurrent_kernel), inputs.shape[1]
        carry = (jnp.zeros(shape, inputs.dtype),) * cell.num_states
        given = form, cell, last_only, dtype, steps
        outputs, carry = _scan(*given, inputs, weights, carry)
        return carry[0].T if last_only else outputs

    on_cpu, elsewhere = (
        functools.partial(run, form) for form in (time_scan, plain_time_scan)
    )
    return jax.lax.platform_dependent(inputs, weights, cpu=on_cpu, default=elsewhere)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3, 4))
def _scan(form, cell, last_only, dtype, remat_steps, inputs, weights, carry):
    given = cell, last_only, dtype, inputs, weights, carry
    return form.forward(*given, for_gradient=False)[0]


def _forward(form, cell, last_only, dtype, remat_steps, inputs, weights, carry):
    if not remat_steps:
        return form.forward(cell, last_only, dtype, inputs, weights, carry)

    def chunk(carry, inputs):
        given = cell, last_only, dtype, inputs, weights, carry
        (outputs, last), _ = form.forward(*given, for_gradient=False)
        return last, (outputs, carry)

    first, chunks = _in_chunks(inputs, remat_steps)
    kept, parts = None, []
    if len(first):  # what is left over, so that all others are of one length
        kept = carry
        carry, (outputs, _) = chunk(carry, first)
        parts.append(outputs)
    carry, (outputs, carries) = jax.lax.scan(chunk, carry, chunks)
    if not last_only:
        outputs = jnp.concatenate([*parts, outputs.reshape(-1, *outputs.shape[2:])])
    return (outputs, carry), (inputs, weights, kept, carries)


def _backward(form, cell, last_only, dtype, remat_steps, saved, grads):
    if not remat_steps:
        return form.backward(cell, dtype, saved, grads)
    inputs, weights, kept, carries = saved

    def chunk(loop, xs):
        carry_grad, sums = loop
        inputs, carry, at_outputs = xs
        _, saved = form.forward(cell, last_only, dtype, inputs, weights, carry)
        at_inputs, weight_grads, carry_grad = form.backward(
            cell, dtype, saved, (at_outputs, carry_grad)
        )
        return (carry_grad, jax.tree.map(jnp.add, sums, weight_grads)), at_inputs

    at_outputs, carry_grad = grads
    first, chunks = _in_chunks(inputs, remat_steps)
    at_first = at_chunks = None
    if not last_only:
        at_first, at_chunks = _in_chunks(at_outputs, remat_steps)
    loop = carry_grad, jax.tree.map(jnp.zeros_like, weights)
    xs = chunks, carries, at_chunks
    loop, at_inputs = jax.lax.scan(chunk, loop, xs, reverse=True)
    parts = [at_inputs.reshape(-1, *at_inputs.shape[2:])]
    if len(first):
        loop, at_inputs = chunk(loop, (first, kept, at_first))
        parts.insert(0, at_inputs)
    carry_grad, weight_grads = loop
    return jnp.concatenate(parts), weight_grads, carry_grad


def _in_chunks(x: Array, num_steps: int) -> tuple[Array, Array]:
    """[T, ..] -> the first T modulo N steps, and the others as [T // N, N, ..]."""
    first = len(x) % num_steps
    return x[:first], x[first:].reshape(-1, num_steps, *x.shape[1:])


_scan.defvjp(_forward, _backward)
