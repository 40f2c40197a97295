"""The recurrences against Flax's cells, a Python loop and automatic gradients."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_jax.models import make_model
from mnist_jax.ops import recurrent

T, B, F, H = 7, 5, 3, 4
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
CELLS = list(GATES)
SLOW = pytest.mark.slow


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


def fast_jit(function):
    """Compiled with less optimization, in a third of the time."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def ours(cell, arrays, last_only, **settings):
    arrays = dict(arrays)
    inputs = arrays.pop("inputs")
    weights = recurrent.Weights(**arrays)
    return getattr(recurrent, cell)(inputs, weights, last_only=last_only, **settings)


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


@pytest.fixture(params=["cpu", "elsewhere"])
def platform(request):
    """Which of an operation's two forms is traced."""
    if request.param == "elsewhere":
        request.getfixturevalue("on_accelerators")


@pytest.mark.usefixtures("platform")
@pytest.mark.parametrize("last_only", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_outputs_and_gradients_equal_those_of_a_loop_over_flax_cell(cell, last_only):
    arrays = make_arrays(cell)
    shape = (B, H) if last_only else (T, B, H)
    weights = np.random.default_rng(1).normal(size=shape).astype(np.float32)

    def loss(run, arrays):
        outputs = run(cell, arrays, last_only)
        return (outputs * weights).sum(), outputs

    got, outputs = jax.jit(jax.grad(functools.partial(loss, ours), has_aux=True))(
        arrays
    )
    expected, flax_outputs = fast_jit(
        jax.grad(functools.partial(loss, flax_loop), has_aux=True)
    )(arrays)
    assert outputs.shape == shape
    np.testing.assert_allclose(outputs, flax_outputs, atol=1e-5)
    for name in arrays:
        scale = np.abs(expected[name]).max()
        assert scale > 1e-3, f"{name} has no gradient to compare"
        np.testing.assert_allclose(
            got[name], expected[name], rtol=1e-5, atol=1e-5 * scale, err_msg=name
        )


@pytest.mark.usefixtures("platform")
@pytest.mark.parametrize("last_only", [True, False])
# With a step left over; chunks of one length, and as if there were none.
@pytest.mark.parametrize(
    "remat_steps", [3, *(pytest.param(n, marks=SLOW) for n in (1, T))]
)
@pytest.mark.parametrize("cell", CELLS)
def test_remat_gives_the_same_gradients(cell, remat_steps, last_only):
    arrays = make_arrays(cell)
    shape = (B, H) if last_only else (T, B, H)
    weights = np.random.default_rng(1).normal(size=shape).astype(np.float32)

    def loss(arrays, remat_steps):
        outputs = ours(cell, arrays, last_only, remat_steps=remat_steps)
        return (outputs * weights).sum(), outputs

    run = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    expected, outputs = run(arrays, 0)
    grads, same = run(arrays, remat_steps)
    np.testing.assert_allclose(same, outputs, atol=1e-6)
    for name, x in expected.items():
        scale = np.abs(x).max()
        np.testing.assert_allclose(grads[name], x, atol=2e-6 * scale, err_msg=name)


@pytest.mark.usefixtures("platform")
@pytest.mark.parametrize("cell", CELLS)
def test_remat_gives_the_same_with_narrow_operands(cell):
    arrays = make_arrays(cell)

    def grads(remat_steps):
        def loss(arrays):
            given = dict(dtype=jnp.bfloat16, remat_steps=remat_steps)
            return (ours(cell, arrays, False, **given) ** 2).sum()

        return fast_jit(jax.grad(loss))(arrays)

    expected, got = grads(0), grads(3)
    for name, x in expected.items():
        scale = np.abs(x).max()
        np.testing.assert_allclose(got[name], x, atol=0.01 * scale, err_msg=name)


def test_models_hand_remat_steps_on():
    images = np.random.default_rng(0).uniform(size=(2, 12, 5, 1)).astype(np.float32)
    settings = dict(units=3, layers=1, bidirectional=True)
    kept = make_model("gru", 10, **settings)
    params = fast_jit(kept.init)(jax.random.key(0), images)["params"]

    def run(model):
        def loss(params):
            return (model.apply({"params": params}, images) ** 2).sum()

        return jax.make_jaxpr(jax.grad(loss))(params), fast_jit(jax.grad(loss))(params)

    plain, expected = run(kept)
    with_remat, got = run(make_model("gru", 10, remat_steps=5, **settings))
    assert str(with_remat).count("scan[") > str(plain).count("scan[")
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_remat_cuts_temporary_memory(cell):
    def temporaries(num_steps, remat_steps):
        arrays = make_arrays(cell) | {"inputs": np.zeros((num_steps, 64, 1), "f")}
        arrays["input_kernel"] = arrays["input_kernel"][:1]

        def loss(arrays):
            return ours(cell, arrays, True, remat_steps=remat_steps).sum()

        compiled = fast_jit(jax.grad(loss)).lower(arrays).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    # What is left is the inputs and one carry for each 32 steps.
    assert temporaries(1024, 32) < 0.2 * temporaries(1024, 0)


@pytest.mark.usefixtures("platform")
@pytest.mark.parametrize("cell", CELLS)
def test_gradient_equals_finite_differences(cell):
    with jax.enable_x64(True):
        arrays = make_arrays(cell, np.float64)
        loss = jax.jit(lambda arrays: (ours(cell, arrays, True) ** 2).sum())
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
    together = fast_jit(jax.vmap(grad))(stacked)
    grad = fast_jit(grad)
    for i, alone in enumerate((arrays, others)):
        for name, expected in grad(alone).items():
            np.testing.assert_allclose(together[name][i], expected, atol=1e-5)


@pytest.mark.parametrize("last_only", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_narrow_operands_of_accelerators_are_near(on_accelerators, cell, last_only):
    arrays = make_arrays(cell)
    shape = (B, H) if last_only else (T, B, H)
    weights = np.random.default_rng(1).normal(size=shape).astype(np.float32)

    def grads(dtype):
        def loss(arrays):
            return (ours(cell, arrays, last_only, dtype=dtype) * weights).sum()

        return fast_jit(jax.grad(loss))(arrays)

    wide, narrow = grads(jnp.float32), grads(jnp.bfloat16)
    for name, expected in wide.items():
        assert narrow[name].dtype == jnp.float32
        scale = np.abs(expected).max()
        np.testing.assert_allclose(narrow[name], expected, atol=0.05 * scale)
        assert not np.array_equal(narrow[name], expected), "nothing was narrow"
