"""The recurrences against Flax's cells, a Python loop and automatic gradients."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_jax.ops import recurrent

T, B, F, H = 7, 5, 3, 4
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
CELLS = list(GATES)


def make_arrays(cell, dtype=np.float32):
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(dtype)  # noqa: E731
    width = GATES[cell] * H
    arrays = {
        "inputs": draw(T, B, F),
        "input_kernel": draw(F, width),
        "bias": draw(width),
        "recurrent_kernel": draw(H, width),
    }
    if cell == "gru":
        arrays["hidden_bias"] = draw(H)
    return arrays


def ours(cell, arrays, last_only):
    arrays = dict(arrays)
    inputs = arrays.pop("inputs")
    weights = recurrent.Weights(**arrays)
    return getattr(recurrent, cell)(inputs, weights, last_only=last_only)


def flax_params(cell, arrays):
    """The same weights under the names of Flax's cells."""
    gates = {"rnn": "", "lstm": "ifgo", "gru": "rzn"}[cell]
    if cell == "rnn":
        return {
            "i": {"kernel": arrays["input_kernel"], "bias": arrays["bias"]},
            "h": {"kernel": arrays["recurrent_kernel"]},
        }
    part = lambda x, k: x[..., k * H : (k + 1) * H]  # noqa: E731
    params = {}
    for k, gate in enumerate(gates):
        params["i" + gate] = {"kernel": part(arrays["input_kernel"], k)}
        params["h" + gate] = {"kernel": part(arrays["recurrent_kernel"], k)}
        side = "h" if cell == "lstm" else "i"
        params[side + gate]["bias"] = part(arrays["bias"], k)
    if cell == "gru":
        params["hn"]["bias"] = arrays["hidden_bias"]
    return params


def flax_loop(cell, arrays, last_only):
    module = {"rnn": nn.SimpleCell, "lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell}
    module = module[cell](features=H)
    carry = module.initialize_carry(jax.random.key(0), (B, F))
    outputs = []
    for x in arrays["inputs"]:
        carry, h = module.apply({"params": flax_params(cell, arrays)}, carry, x)
        outputs.append(h)
    return outputs[-1] if last_only else jnp.stack(outputs)


@pytest.mark.parametrize("last_only", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_scan_equals_python_loop_over_flax_cell(cell, last_only):
    arrays = make_arrays(cell)
    got = ours(cell, arrays, last_only)
    assert got.shape == ((B, H) if last_only else (T, B, H))
    np.testing.assert_allclose(got, flax_loop(cell, arrays, last_only), atol=1e-5)


@pytest.mark.parametrize("last_only", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_equal_those_of_flax_cell(cell, last_only):
    arrays = make_arrays(cell)
    shape = (B, H) if last_only else (T, B, H)
    weights = np.random.default_rng(1).normal(size=shape).astype(np.float32)

    def loss(run, arrays):
        return (run(cell, arrays, last_only) * weights).sum()

    got = jax.grad(functools.partial(loss, ours))(arrays)
    expected = jax.grad(functools.partial(loss, flax_loop))(arrays)
    for name in arrays:
        scale = np.abs(expected[name]).max()
        assert scale > 1e-3, f"{name} has no gradient to compare"
        np.testing.assert_allclose(
            got[name], expected[name], rtol=1e-5, atol=1e-5 * scale, err_msg=name
        )


@pytest.mark.parametrize("cell", CELLS)
def test_gradient_equals_finite_differences(cell):
    with jax.enable_x64(True):
        arrays = make_arrays(cell, np.float64)
        loss = lambda arrays: (ours(cell, arrays, True) ** 2).sum()  # noqa: E731
        grads = jax.grad(loss)(arrays)
        for name, array in arrays.items():
            index = tuple(n // 2 for n in array.shape)
            step = np.zeros_like(array)
            step[index] = 1e-6
            up = loss({**arrays, name: array + step})
            down = loss({**arrays, name: array - step})
            np.testing.assert_allclose(
                grads[name][index], (up - down) / 2e-6, rtol=1e-5, err_msg=name
            )


@pytest.mark.parametrize("cell", CELLS)
def test_vmap_over_weights_equals_single_runs(cell):
    arrays = make_arrays(cell)
    others = {name: 0.5 * array for name, array in arrays.items()}
    stacked = jax.tree.map(lambda a, b: jnp.stack([a, b]), arrays, others)
    grad = jax.grad(lambda arrays: ours(cell, arrays, True).sum())
    together = jax.jit(jax.vmap(grad))(stacked)
    for i, alone in enumerate((arrays, others)):
        for name, expected in grad(alone).items():
            np.testing.assert_allclose(together[name][i], expected, atol=1e-5)
