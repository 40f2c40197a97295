"""lru, mingru and minlstm against loops of NumPy over the time steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_jax.config import make_config
from mnist_jax.models import make_model
from mnist_jax.models.linear_cells import LRU, MinGRU, MinLSTM
from mnist_jax.settings import ConfigError

IMAGES = np.random.default_rng(0).uniform(size=(3, 9, 8, 1)).astype(np.float32)
SIMPLE = {"xla_backend_optimization_level": 0}
MODELS_HERE = ("lru", "mingru", "minlstm")


def init(model, inputs=IMAGES, seed=0):
    # Compiled as a whole and simply: one by one its operations take seconds.
    init = jax.jit(model.init, compiler_options=SIMPLE)
    params = init(jax.random.key(seed), inputs)["params"]
    # First values of zero or one would hide an error.
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [
        x + 0.1 * jax.random.normal(k, x.shape)
        for x, k in zip(leaves, keys, strict=True)
    ]
    return jax.tree.map(np.asarray, tree.unflatten(noisy))


def apply(model, params, *inputs, **options):
    function = jax.jit(
        lambda *inputs: model.apply({"params": params}, *inputs, **options),
        compiler_options=SIMPLE,
    )
    return np.asarray(function(*inputs))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def dense(x, own):
    """[T, B, F], the last axis as in `layers.Dense`."""
    return x @ own["kernel"].T + own["bias"]


def norm(x, own):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * own["scale"] + own["bias"]


def run(name, x, own):
    """A cell from the first step to the last, [T, B, F]."""
    h, outputs = 0, []
    if name == "lru":
        decay = np.exp(-np.exp(own["nu"]) + 1j * np.exp(own["theta"]))
        real, imaginary = np.split(own["to_states"], 2)
        to_states = np.exp(own["log_gain"])[:, None] * (real + 1j * imaginary)
        real, imaginary = np.split(own["from_states"], 2, axis=1)
        for step in x:
            h = decay * h + step @ to_states.T
            read = h.real @ real.T + h.imag @ imaginary.T
            outputs.append(read + own["skip"] * step)
        return np.stack(outputs)
    for step in x:
        sums = dense(step, own["DenseFirst_0"])
        if name == "mingru":
            keep, new = np.split(sums, 2, axis=-1)
            keep = sigmoid(keep)
        else:
            forget, enter, new = np.split(sums, 3, axis=-1)
            keep = sigmoid(forget) / (sigmoid(forget) + sigmoid(enter))
        h = keep * h + (1 - keep) * new
        outputs.append(h)
    return np.stack(outputs)


def reference(name, params, images, bidirectional=False, pool=1, readout="mean"):
    """Logits of two layers that read rows."""
    x = dense(images[..., 0].swapaxes(0, 1), params["DenseFirst_0"])
    number = 1  # of the next dense layer
    cells = iter(range(4))
    cell = {"lru": "LRU", "mingru": "MinGRU", "minlstm": "MinLSTM"}[name]
    for i in range(2):
        if i and pool > 1:
            starts = range(0, len(x), pool)
            x = np.stack([x[start : start + pool].mean(0) for start in starts])
            x = dense(x, params[f"DenseFirst_{number}"])
            number += 1
        normed = norm(x, params[f"LayerNorm_{i}"])
        outputs = [run(name, normed, params[f"{cell}_{next(cells)}"])]
        if bidirectional:
            own = params[f"{cell}_{next(cells)}"]
            outputs.append(run(name, normed[::-1], own)[::-1])
        mixed = dense(np.concatenate(outputs, -1), params[f"DenseFirst_{number}"])
        number += 1
        value, gate = np.split(mixed, 2, axis=-1)
        x = x + value * sigmoid(gate)
    x = norm(x, params["LayerNorm_2"])
    if readout == "mean":
        read = x.mean(0)
    else:
        read = np.concatenate([x[-1], x[0]], -1) if bidirectional else x[-1]
    return dense(read, params["Dense_0"])


@pytest.mark.parametrize("name", MODELS_HERE)
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(dict(), marks=pytest.mark.slow),
        dict(bidirectional=True, pool=2, readout="last"),
        # Nine steps are joined to one.
        pytest.param(dict(pool=20, readout="last"), marks=pytest.mark.slow),
    ],
    ids=["plain", "both ways, pooled", "pooled to one step"],
)
def test_equals_a_loop(name, settings):
    model = make_model(name, 10, units=5, layers=2, **settings)
    params = init(model)
    expected = reference(name, params, IMAGES, **settings)
    np.testing.assert_allclose(apply(model, params, IMAGES), expected, atol=1e-4)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "mingru" else pytest.mark.slow)
        for name in MODELS_HERE
    ],
)
def test_reading_some_steps_at_a_time_changes_no_value_and_no_gradient(name):
    """Nine steps, of which the first layer reads four, four and one."""
    settings = dict(units=5, layers=2, pool=2, dropout=0.3)
    whole = make_model(name, 10, **settings)
    segmented = make_model(name, 10, remat_steps=4, **settings)
    params = init(whole)
    jax.tree.map(np.testing.assert_array_equal, init(segmented), params)
    keys = jax.random.split(jax.random.key(3), 3)

    def run(model):
        def loss(params, images):
            logits = model.apply({"params": params}, images, keys)
            return (logits**2).sum(), logits

        grad = jax.grad(loss, (0, 1), has_aux=True)
        return jax.jit(grad, compiler_options=SIMPLE)(params, IMAGES)

    expected, found = run(whole), run(segmented)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected
    )
    assert all(np.abs(x).max() > 1e-4 for x in jax.tree.leaves(expected))


@pytest.mark.slow
def test_reading_some_steps_at_a_time_takes_less_memory():
    def temporaries(**settings):
        model = make_model("lru", 10, units=4, layers=1, sequence="pixels", **settings)
        images = np.zeros((64, 32, 32, 1), np.float32)
        params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
        grad = jax.grad(lambda p: model.apply({"params": p}, images).sum())
        compiled = jax.jit(grad, compiler_options=SIMPLE).lower(params).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(remat_steps=32) < 0.5 * temporaries()


def test_both_directions_are_read_at_once():
    with pytest.raises(ConfigError, match="--remat_steps=4 --bidirectional: expected"):
        model = make_model("lru", 10, units=4, bidirectional=True, remat_steps=4)
        jax.eval_shape(model.init, jax.random.key(0), IMAGES)


@pytest.mark.parametrize("readout", ["mean", "last"])
def test_logits_after_every_step_are_those_of_what_was_read(readout):
    model = make_model("mingru", 10, units=5, layers=2, readout=readout)
    params = init(model)
    steps = apply(model, params, IMAGES, every_step=True)
    assert steps.shape == (9, 3, 10)
    for t in (1, 4, 9):
        read = apply(model, params, IMAGES[:, :t])
        np.testing.assert_allclose(steps[t - 1], read, atol=1e-4)


def test_dropout_is_drawn_by_each_images_key():
    model = make_model("mingru", 10, units=5, layers=1, dropout=0.5)
    params = init(model)
    keys = jax.random.split(jax.random.key(3), 3)
    dropped = apply(model, params, IMAGES, keys)
    assert not np.allclose(dropped, apply(model, params, IMAGES))
    alone = apply(model, params, IMAGES[1:], keys[1:])
    np.testing.assert_allclose(alone, dropped[1:], atol=1e-5)


def test_a_unit_is_dropped_at_all_steps_or_at_none():
    # Of an image that is the same in all rows and a cell that keeps nothing all steps
    # are alike, with and without what is dropped.
    model = make_model("mingru", 10, units=64, layers=1, dropout=0.5)
    images = np.repeat(IMAGES[:, :1], 9, axis=1)
    params = init(model, images)
    gates = params["MinGRU_0"]["DenseFirst_0"]
    gates["bias"] = np.where(np.arange(128) < 64, -30, gates["bias"])
    keys = jax.random.split(jax.random.key(3), 3)
    steps = apply(model, params, images, keys, every_step=True)
    np.testing.assert_allclose(
        steps, np.broadcast_to(steps[:1], steps.shape), atol=1e-4
    )
    assert not np.allclose(steps[0], apply(model, params, images))


@pytest.mark.parametrize("min_decay", [0.5, 0.9])
def test_the_first_states_have_the_variance_of_white_inputs(min_decay):
    inputs = np.random.default_rng(1).normal(size=(64, 2_000, 1)).astype("f")
    cell, state = LRU(min_decay), (np.zeros((64, 1, 1), "f"),) * 2
    params = jax.jit(cell.init)(jax.random.key(0), state, inputs)["params"]
    radius = np.exp(-np.exp(params["nu"]))
    assert min_decay <= radius.min() < min_decay + 0.1 and 0.95 < radius.max() <= 0.999
    params["from_states"] = jnp.concatenate([jnp.eye(64), jnp.zeros((64, 64))], 1)
    params["skip"] = jnp.zeros(64)
    _, states = cell.apply({"params": params}, state, inputs)
    states = states[:, 500:]
    assert 0.4 < states.var() < 0.6  # the real parts have half of it


def test_the_ring_of_the_lru_is_a_setting():
    with pytest.raises(ConfigError, match="--min_decay=1.0: .* below 0.999"):
        make_config("lru", "mnist", min_decay=1.0)
    with pytest.raises(ConfigError, match="--min_decay is not a setting of .*mingru"):
        make_config("mingru", "mnist", min_decay=0.9)
    model = make_model("lru", 10, units=64, min_decay=0.9)
    cell = init(model)["LRU_0"]  # with noise of 0.1
    assert np.exp(-np.exp(cell["nu"])).min() > 0.85


@pytest.mark.parametrize("cell", [MinGRU(200), MinLSTM(200)])
def test_the_first_gates_keep_states_for_up_to_the_whole_sequence(cell):
    state, inputs = (np.zeros((500, 1, 1), "f"),), np.zeros((500, 20, 1), "f")
    params = jax.jit(cell.init)(jax.random.key(0), state, inputs)["params"]
    bias = params["DenseFirst_0"]["bias"]
    keep = sigmoid(bias[:500])
    steps = 1 / (1 - keep)
    assert 1.9 < steps.min() < 6 and 190 < steps.max() < 201
    assert not bias[-500:].any()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS_HERE)
def test_mixed_precision_is_near(name):
    settings = dict(units=32, layers=2, pool=2)
    model = make_model(name, 10, **settings)
    params = init(model)
    narrow = make_model(name, 10, "bfloat16", **settings)
    np.testing.assert_allclose(
        apply(narrow, params, IMAGES), apply(model, params, IMAGES), atol=0.1
    )


def test_one_unit_is_refused():
    with pytest.raises(ConfigError, match="--units=1: expected 2 or more"):
        jax.eval_shape(make_model("lru", 10, units=1).init, jax.random.key(0), IMAGES)


def test_widths_that_grow_too_far_are_refused():
    model = make_model("lru", 10, units=64, layers=10, pool=2)
    with pytest.raises(ConfigError, match="--layers=10 --pool=2: 32,768 units"):
        jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 2_000, 1, 1)))


def test_pooling_without_a_layer_to_pool_for_is_refused():
    model = make_model("lru", 10, units=4, layers=1, pool=2)
    with pytest.raises(ConfigError, match="--pool=2: time is pooled between layers"):
        jax.eval_shape(model.init, jax.random.key(0), IMAGES)
