"""Linear recurrences with a diagonal, h' = a h + b, and their own gradient.

Nothing but products of single numbers hangs on the state before, so that the steps can
be joined in any order: `jax.lax.associative_scan` needs log T rounds of it (Blelloch,
"Prefix Sums and Their Applications", 1990), which suits accelerators. On CPU it reads
and writes the sequence log T times where a loop over the steps does so once.

The gradient is the same recurrence from the other end, with the conjugate of a.

A number is a tuple of arrays: its real part, and its imaginary part if it has one. XLA
holds complex numbers interleaved, which vectors take with difficulty.

Shapes: T time steps of b, each [B, H]; a is [H], the same at all steps, or [T, B, H].
"""

import functools

import jax
import jax.numpy as jnp

Array = jax.Array
Number = tuple[Array, ...]  # real part; of complex numbers also the imaginary one


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def linear_recurrence(decay: Number, inputs: Number, reverse: bool = False) -> Number:
    """h_t = a_t h_{t-1} + b_t; before the first step h is 0.

    Args:
      decay: a, float32 [H] or [T, B, H].
      inputs: b, float32 [T, B, H]; complex if and only if `decay` is.
      reverse: whether to begin at the end: h_t = a_t h_{t+1} + b_t.

    Returns:
      All h, [T, B, H].
    """
    return _forward(decay, inputs, reverse)[0]


def _forward(decay, inputs, reverse):
    states = jax.lax.platform_dependent(
        decay,
        inputs,
        cpu=functools.partial(_by_steps, reverse=reverse),
        default=functools.partial(_by_halves, reverse=reverse),
    )
    return states, (decay, states)


def _backward(reverse, saved, grads):
    return jax.lax.platform_dependent(
        *saved,
        grads,
        cpu=functools.partial(_gradient_by_steps, reverse=reverse),
        default=functools.partial(_gradient_by_halves, reverse=reverse),
    )


linear_recurrence.defvjp(_forward, _backward)


def _by_steps(decay: Number, inputs: Number, reverse: bool) -> Number:
    def step(h, at_step):
        a, b = at_step
        h = _add(_multiply(decay if a is None else a, h), b)
        return h, h

    varying = _varies(decay)
    xs = (decay if varying else None, inputs)
    return jax.lax.scan(step, _zeros(inputs), xs, reverse=reverse)[1]


def _gradient_by_steps(decay, states, grads, reverse):
    """Of a that is the same at all steps it is added up on the way."""
    varying = _varies(decay)
    num_steps = len(grads[0])
    first = num_steps - 1 if reverse else 0

    def step(carry, at_step):
        from_next, total = carry
        t, a, grad = at_step
        grad = _add(grad, from_next)
        t_before = jnp.clip(t + (1 if reverse else -1), 0, num_steps - 1)
        before = tuple(jnp.where(t == first, 0.0, x[t_before]) for x in states)
        decay_grad = _multiply(_conjugate(before), grad)
        if not varying:
            total, decay_grad = _add(total, decay_grad), None
        carry = _multiply(_conjugate(decay if a is None else a), grad), total
        return carry, (decay_grad, grad)

    zeros = _zeros(grads)
    xs = (jnp.arange(num_steps), decay if varying else None, grads)
    (_, total), (decay_grads, input_grads) = jax.lax.scan(
        step, (zeros, None if varying else zeros), xs, reverse=not reverse
    )
    if not varying:
        decay_grads = tuple(x.sum(0) for x in total)
    return decay_grads, input_grads


def _by_halves(decay: Number, inputs: Number, reverse: bool) -> Number:
    def join(first, then):
        return (
            _multiply(then[0], first[0]),
            _add(_multiply(then[0], first[1]), then[1]),
        )

    decay = tuple(jnp.broadcast_to(x, inputs[0].shape) for x in decay)
    return jax.lax.associative_scan(join, (decay, inputs), reverse=reverse)[1]


def _gradient_by_halves(decay, states, grads, reverse):
    # What reaches a step came through the decay of the step after it.
    after = tuple(_shift(x, not reverse) if x.ndim > 1 else x for x in decay)
    input_grads = _by_halves(_conjugate(after), grads, not reverse)
    before = tuple(_shift(x, reverse) for x in states)
    decay_grads = _multiply(_conjugate(before), input_grads)
    if not _varies(decay):
        decay_grads = tuple(x.sum((0, 1)) for x in decay_grads)
    return decay_grads, input_grads


def _varies(decay: Number) -> bool:
    return decay[0].ndim > 1


def _zeros(sequence: Number) -> Number:
    return tuple(jnp.zeros_like(x[0]) for x in sequence)


def _shift(sequence: Array, forward: bool) -> Array:
    """Each step's value of the step after it (`forward`) or before it; 0 at the end."""
    none = jnp.zeros_like(sequence[:1])
    parts = [sequence[1:], none] if forward else [none, sequence[:-1]]
    return jnp.concatenate(parts)


def _multiply(a: Number, b: Number) -> Number:
    if len(a) == 1:
        return (a[0] * b[0],)
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def _add(a: Number, b: Number) -> Number:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _conjugate(a: Number) -> Number:
    return (a[0], *(-x for x in a[1:]))
