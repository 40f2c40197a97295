"""Linear recurrences against a Python loop of complex numbers: values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_jax.ops.linear_recurrence import linear_recurrence

CASES = [
    pytest.param(parts, varying, reverse, id=f"{name}-{at}-{direction}")
    for parts, name in ((1, "real"), (2, "complex"))
    for varying, at in ((False, "constant"), (True, "varying"))
    for reverse, direction in ((False, "forward"), (True, "reverse"))
]


def draw(parts, varying, num_steps=9):
    rng = np.random.default_rng(parts)
    shape = (4, num_steps, 3)
    decay = rng.uniform(-0.8, 0.8, (parts, *(shape if varying else shape[:1])))
    inputs = rng.normal(size=(parts, *shape))
    initial = rng.normal(size=(parts, 4, 1, 3))
    return tuple(tuple(x.astype("f")) for x in (decay, inputs, initial))


def reference(decay, inputs, initial, reverse=False):
    numbers = (decay, inputs, initial)
    a, b, h = (x[0] + 1j * x[1] if len(x) == 2 else x[0] for x in numbers)
    a = a if a.ndim > 1 else jnp.broadcast_to(a[:, None, None], b.shape)
    steps = range(b.shape[1])
    states, h = {}, h[:, 0]
    for t in reversed(steps) if reverse else steps:
        states[t] = h = a[:, t] * h + b[:, t]
    h = jnp.stack([states[t] for t in steps], axis=1)
    return (h.real, h.imag) if len(inputs) == 2 else (h,)


def value_and_grads(function, *arrays):
    value, pull_back = jax.vjp(function, *arrays)
    weights = tuple(
        jnp.sin(i + jnp.arange(x.size, dtype="f")).reshape(x.shape)
        for i, x in enumerate(value)
    )
    return value, pull_back(weights)


def assert_equal(reverse, arrays):
    expected = value_and_grads(lambda *x: reference(*x, reverse), *arrays)
    got = jax.jit(
        lambda *x: value_and_grads(lambda *y: linear_recurrence(*y, reverse), *x)
    )(*arrays)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize("parts, varying, reverse", CASES)
def test_value_and_gradients_equal_a_loop(parts, varying, reverse):
    assert_equal(reverse, draw(parts, varying))


@pytest.mark.parametrize("parts, varying, reverse", CASES)
def test_what_accelerators_get_equals_a_loop(on_accelerators, parts, varying, reverse):
    """Their branch, taken on this machine."""
    assert_equal(reverse, draw(parts, varying))


def test_one_step():
    decay, inputs, initial = draw(1, False, num_steps=1)
    (states,) = jax.jit(linear_recurrence)(decay, inputs, initial)
    expected = decay[0][:, None, None] * initial[0] + inputs[0]
    np.testing.assert_allclose(states, expected, rtol=1e-6)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_accelerators_get_no_loop(platform):
    arrays = draw(2, False, num_steps=64)
    lowered = jax.jit(lambda *x: value_and_grads(linear_recurrence, *x)).trace(*arrays)
    text = lowered.lower(lowering_platforms=(platform,)).as_text()
    assert "stablehlo.while" not in text
