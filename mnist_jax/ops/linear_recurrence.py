"""Linear recurrences with a diagonal, h' = a h + b, and their own gradient.

Nothing but products of single numbers hangs on the state before, so that the steps can
be joined in any order: `jax.lax.associative_scan` needs log T rounds of it (Blelloch,
"Prefix Sums and Their Applications", 1990), which suits accelerators. On CPU it reads
and writes the sequence log T times where a loop over the steps does so once.

The gradient is the same recurrence from the other end, with the conjugate of a.

A number is a tuple of arrays: its real part, and its imaginary part if it has one. XLA
holds complex numbers interleaved, which vectors take with difficulty.

Shapes: b is [H, T, B], of T time steps; a is [H], the same at all steps and for all of
B, or [H, T, B].
"""

import functools

import jax
import jax.numpy as jnp

Array = jax.Array
Number = tuple[Array, ...]  # real part; of complex numbers also the imaginary one


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def linear_recurrence(
    decay: Number, inputs: Number, initial: Number, reverse: bool = False
) -> Number:
    """h_t = a_t h_{t-1} + b_t.

    Args:
      decay: a, float32 [H] or [H, T, B].
      inputs: b, float32 [H, T, B]; complex if and only if `decay` is.
      initial: h before the first step, float32 [H, 1, B].
      reverse: whether to begin at the end: h_t = a_t h_{t+1} + b_t.

    Returns:
      All h, [H, T, B].
    """
    return _forward(decay, inputs, initial, reverse)[0]


def _forward(decay, inputs, initial, reverse):
    states = jax.lax.platform_dependent(
        decay,
        inputs,
        initial,
        cpu=functools.partial(_by_steps, reverse=reverse),
        default=functools.partial(_by_halves, reverse=reverse),
    )
    return states, (decay, initial, states)


def _backward(reverse, saved, grads):
    return jax.lax.platform_dependent(
        *saved,
        grads,
        cpu=functools.partial(_gradient_by_steps, reverse=reverse),
        default=functools.partial(_gradient_by_halves, reverse=reverse),
    )


linear_recurrence.defvjp(_forward, _backward)


def _by_steps(decay: Number, inputs: Number, initial: Number, reverse: bool) -> Number:
    """Puts the states in the place of the inputs."""

    def step(loop, t):
        h, stack = loop
        h = _add(_multiply(_at(decay, t), h), _read(stack, t))
        return (h, _write(stack, t, h)), None

    loop = (initial, inputs)
    times = jnp.arange(inputs[0].shape[1])
    return jax.lax.scan(step, loop, times, reverse=reverse)[0][1]


def _gradient_by_steps(decay, initial, states, grads, reverse):
    """Puts the gradients in the place of what they are of.

    That of a decay which is the same at all steps is added up on the way.
    """
    num_steps = grads[0].shape[1]
    first = _first_step(grads, reverse)
    to_before = 1 if reverse else -1

    def step(loop, t):
        from_after, stack, decay_stack, total = loop
        stack = _write(stack, t, _add(_read(stack, t), from_after))
        # Read again what was written: XLA would copy the stack to keep both.
        grad = _read(stack, t)
        t_before = jnp.clip(t + to_before, 0, num_steps - 1)
        before = tuple(
            jnp.where(t == first, start, x)
            for start, x in zip(initial, _read(states, t_before), strict=True)
        )
        a = _at(decay, t)
        from_after = _multiply(_conjugate(a), grad)
        of_decay = _multiply(_conjugate(before), grad)
        if _varies(decay):
            decay_stack = _write(decay_stack, t, of_decay)
        else:
            total = _add(total, of_decay)
        return (from_after, stack, decay_stack, total), None

    zeros = tuple(map(jnp.zeros_like, initial))
    varying = _varies(decay)
    decay_stack = tuple(map(jnp.zeros_like, grads)) if varying else None
    loop = (zeros, grads, decay_stack, None if varying else zeros)
    times = jnp.arange(num_steps)
    loop = jax.lax.scan(step, loop, times, reverse=not reverse)[0]
    initial_grads, input_grads, decay_grads, total = loop
    decay_grads = decay_grads or tuple(x.sum((1, 2)) for x in total)
    return decay_grads, input_grads, initial_grads


def _at(decay: Number, t: Array | int) -> Number:
    return _read(decay, t) if _varies(decay) else _everywhere(decay)


def _everywhere(decay: Number) -> Number:
    return tuple(x[:, None, None] for x in decay)


def _read(stacks: Number, t: Array | int) -> Number:
    return tuple(jax.lax.dynamic_slice_in_dim(x, t, 1, axis=1) for x in stacks)


def _write(stacks: Number, t: Array | int, values: Number) -> Number:
    return tuple(
        jax.lax.dynamic_update_slice_in_dim(x, value, t, axis=1)
        for x, value in zip(stacks, values, strict=True)
    )


def _by_halves(decay: Number, inputs: Number, initial: Number, reverse: bool) -> Number:
    def join(first, then):
        return (
            _multiply(then[0], first[0]),
            _add(_multiply(then[0], first[1]), then[1]),
        )

    first = _first_step(inputs, reverse)
    padding = ((0, 0), (first, inputs[0].shape[1] - 1 - first), (0, 0))
    carried = _multiply(_at(decay, first), initial)
    inputs = _add(inputs, tuple(jnp.pad(x, padding) for x in carried))
    if not _varies(decay):
        decay = tuple(jnp.broadcast_to(x, inputs[0].shape) for x in _everywhere(decay))
    return jax.lax.associative_scan(join, (decay, inputs), reverse=reverse, axis=1)[1]


def _gradient_by_halves(decay, initial, states, grads, reverse):
    # What reaches a step came through the decay of the step after it.
    zeros = tuple(map(jnp.zeros_like, initial))
    after = _shift(decay, zeros, not reverse) if _varies(decay) else decay
    input_grads = _by_halves(_conjugate(after), grads, zeros, not reverse)
    before = _shift(states, initial, reverse)
    decay_grads = _multiply(_conjugate(before), input_grads)
    first = _first_step(grads, reverse)
    initial_grads = _multiply(_conjugate(_at(decay, first)), _read(input_grads, first))
    if not _varies(decay):
        decay_grads = tuple(x.sum((1, 2)) for x in decay_grads)
    return decay_grads, input_grads, initial_grads


def _varies(decay: Number) -> bool:
    return decay[0].ndim > 1


def _first_step(inputs: Number, reverse: bool) -> int:
    return inputs[0].shape[1] - 1 if reverse else 0


def _shift(sequence: Number, at_end: Number, forward: bool) -> Number:
    """Each step's value of the step after it (`forward`) or before it."""
    return tuple(
        jnp.concatenate([x[:, 1:], end] if forward else [end, x[:, :-1]], axis=1)
        for x, end in zip(sequence, at_end, strict=True)
    )


def _multiply(a: Number, b: Number) -> Number:
    if len(a) == 1:
        return (a[0] * b[0],)
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def _add(a: Number, b: Number) -> Number:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _conjugate(a: Number) -> Number:
    return (a[0], *(-x for x in a[1:]))
