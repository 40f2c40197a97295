"""Every operation of `mnist_jax.ops`, with its gradient, on a device and on the CPU."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mnist_jax.ops import (
    convolution,
    dense,
    depthwise,
    linear_recurrence,
    normalization,
    recurrent,
)

# Of the largest value of the CPU's result; bfloat16 has 8 bits.
TOLERANCES = {"float32": 1e-4, "bfloat16": 5e-2}


class Case(NamedTuple):
    """A function of float32 arrays of these shapes, and its precision."""

    function: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    precision: str


def make_cases() -> dict[str, Case]:
    """By name."""
    cases = {}
    for precision in TOLERANCES:
        dtype = jnp.dtype(precision)
        own = _with_dtype(dtype)
        if precision == "float32":
            own |= _WIDE
        else:
            # Rounded, another of four nearly equal values wins, and has the gradient.
            own = {name: x for name, x in own.items() if "conv_pool" not in name}
        for name, (function, *shapes) in own.items():
            cases[f"{name}, {precision}"] = Case(function, tuple(shapes), precision)
    return cases


def _with_dtype(dtype: jnp.dtype) -> dict[str, tuple]:
    def recurrence(op, **settings):
        def run(inputs, input_kernel, recurrent_kernel, bias, *hidden_bias):
            weights = recurrent.Weights(
                input_kernel, 0.3 * recurrent_kernel, bias, *hidden_bias
            )
            return op(inputs, weights, dtype=dtype, **settings)

        return run

    def weights(gates):
        return (28, 64, 28), (28, gates * 32), (32, gates * 32), (gates * 32,)

    found = {}
    for name, gates, others in (("rnn", 1, ()), ("lstm", 4, ()), ("gru", 3, ((32,),))):
        op = getattr(recurrent, name)
        for last_only in (True, False):
            key = f"{name}, {'last state' if last_only else 'all states'}"
            function = recurrence(op, last_only=last_only)
            found[key] = function, *weights(gates), *others
    images, one_channel = (13, 13, 8, 64), (28, 28, 1, 64)
    for name in ("conv_pool", "conv_mean", "convolve"):
        op = getattr(convolution, name)

        def run(images, kernel, op=op):
            return op(images, kernel, dtype)

        found[name] = run, images, (3, 3, 8, 16)
        found[f"{name}, one channel"] = run, one_channel, (3, 3, 1, 16)
    found["dense"] = lambda x, k: dense.dense(x, k, dtype), (64, 50), (20, 50)
    found["dense_first"] = (
        lambda x, k: dense.dense_first(x, k, dtype),
        (50, 7, 64),
        (20, 50),
    )
    return found


def _recurrence_of(parts: int, reverse: bool) -> Callable[..., Any]:
    def run(*arrays):
        decay, inputs, initial = (arrays[i * parts : (i + 1) * parts] for i in range(3))
        decay = tuple(0.5 * jnp.tanh(x) for x in decay)
        return linear_recurrence.linear_recurrence(decay, inputs, initial, reverse)

    return run


_REAL = ((16,), (16, 100, 32), (16, 1, 32))
_WIDE = {
    "depthwise": (depthwise.depthwise, (8, 12, 12, 64), (8, 3, 3)),
    "depthwise, dilated": (
        functools.partial(depthwise.depthwise, dilation=4),
        (8, 12, 12, 64),
        (8, 3, 3),
    ),
    "batch_norm": (
        lambda x, g, b: normalization.batch_norm(x, g, b, 2)[0],
        (6, 6, 8, 64),
        (8,),
        (8,),
    ),
    "linear_recurrence, real": (_recurrence_of(1, False), *_REAL),
    "linear_recurrence, reverse": (_recurrence_of(1, True), *_REAL),
    "linear_recurrence, complex": (
        _recurrence_of(2, False),
        *(shape for shape in _REAL for _ in range(2)),
    ),
}


def compare(case: Case, device: jax.Device, cpu: jax.Device) -> Mapping[str, Any]:
    """Largest differences over the largest value, of the result and of the gradients.

    Args:
      case: what to run, with random arguments.
      device: whose results these are.
      cpu: whose results are taken to be right.
    """
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in case.shapes]

    def loss(*arrays):
        outputs = case.function(*arrays)
        weights = (jnp.sin(jnp.arange(x.size)) for x in jax.tree.leaves(outputs))
        pairs = zip(jax.tree.leaves(outputs), weights, strict=True)
        return sum((x.ravel() * w).sum() for x, w in pairs), outputs

    grad = jax.grad(loss, argnums=tuple(range(len(arrays))), has_aux=True)
    results = []
    for place in (device, cpu):
        placed = jax.device_put(arrays, place)
        results.append(jax.device_get(jax.jit(grad)(*placed)))
    (grads, outputs), (cpu_grads, cpu_outputs) = results
    of_value, of_gradient = _error(outputs, cpu_outputs), _error(grads, cpu_grads)
    limit = TOLERANCES[case.precision]
    return {
        "value_error": of_value,
        "gradient_error": of_gradient,
        "limit": limit,
        "is_right": max(of_value, of_gradient) <= limit,  # false for NaN
    }


def _error(found: Any, expected: Any) -> float:
    errors = [
        np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    ]
    return float(max(errors))
