"""Training in bfloat16: what is narrow, what stays float32, and that it is exact."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from runs_of_launch import assert_same_bits, make_mlp, saved, train_until, without_times

from mnist_jax import models, train_step, training_setup
from mnist_jax.config import make_config
from mnist_jax.ops import precision
from mnist_jax.parallel import devices
from mnist_jax.settings import ConfigError
from mnist_jax.training import train_and_evaluate

# These take long to trace and to compile.
SLOW = ("lenet5", "cnn", "resnet", "fourway", "renet", "lru", "mingru", "minlstm")
MODELS = [
    pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name
    for name in models.MODELS
    if "bfloat16" in models.precisions(name)
]
OPTIMIZER = optax.adam(1e-3)
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 28, 28, 1), np.uint8)
BATCH = train_step.Batch(
    jnp.asarray(IMAGES),
    jnp.arange(6, dtype=jnp.int32),
    jax.random.split(jax.random.key(1), 6),
)


def make(name, dtype):
    small = {"units": 8, "hidden_sizes": (16, 8)}
    known = models.default_settings(name)
    own = {key: value for key, value in small.items() if key in known}
    return models.make_model(name, 10, dtype, **own)


def make_step(name, dtype):
    """Its first state and its step."""
    model = make(name, dtype)
    state = train_step.init_state(model, OPTIMIZER, 0, IMAGES.shape[1:])
    return state, train_step.make_train_step(model, OPTIMIZER)


def grads(name, dtype):
    model = make(name, dtype)
    state, _ = make_step(name, "float32")

    def of(params):
        logits = model.apply({"params": params}, train_step.to_float(BATCH.images))
        return (logits * jnp.sin(jnp.arange(60.0)).reshape(6, 10)).sum(), logits

    options = {"xla_backend_optimization_level": 0}  # to compile faster
    return jax.jit(jax.grad(of, has_aux=True), compiler_options=options)(state.params)


def test_a_stored_array_is_rounded_to_the_nearest():
    x = RNG.normal(size=1000).astype(np.float32)
    stored = precision.store(jnp.asarray(x), jnp.bfloat16)
    assert stored.dtype == jnp.uint16
    nearest = x.astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(precision.load(stored), nearest)
    np.testing.assert_array_equal(
        precision.load_float(stored), nearest.astype(np.float32)
    )
    assert precision.store(x, jnp.float32) is x


def test_products_are_added_up_in_float32():
    ones = jnp.ones((1, 512), jnp.bfloat16)
    # In bfloat16 a sum of ones ends at 256.
    assert jax.jit(precision.matmul)(ones, ones.T) == 512
    assert jax.jit(precision.matmul_transposed)(ones, ones) == 512


@pytest.mark.parametrize("name", MODELS)
def test_logits_and_gradients_are_those_of_float32_but_for_rounding(name):
    expected, wide = grads(name, "float32")
    got, narrow = grads(name, "bfloat16")
    assert narrow.dtype == jnp.float32
    scale = np.abs(wide).max()
    assert 0 < np.abs(narrow - wide).max() < 0.03 * scale
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert a.dtype == jnp.float32
        # As vectors: where a maximum is a tie but for rounding, one value may move.
        assert np.linalg.norm(a - b) <= 0.15 * np.linalg.norm(b)


@pytest.mark.parametrize("name", MODELS)
def test_what_changes_in_training_stays_float32(name):
    state, step = make_step(name, "bfloat16")
    after, metrics = jax.eval_shape(step, state, BATCH)
    for leaf in jax.tree.leaves((after.params, after.opt_state, metrics)):
        assert leaf.dtype in (jnp.float32, jnp.int32)


WINOGRAD = "tensor<49x"  # of its places


def products(name, platform, but_for=None):
    """Of a train step's matmuls and convolutions: types of operands and result."""
    state, step = make_step(name, "bfloat16")
    text = jax.jit(step).trace(state, BATCH).lower(lowering_platforms=(platform,))
    lines = re.findall(
        r"stablehlo\.(?:dot_general|convolution)\b.*: \((.*)\) -> (.*)", text.as_text()
    )
    lines = [line for line in lines if not (but_for and but_for in line[0])]
    assert lines
    kind = re.compile(r"x([a-z]+\d+)>")
    return {(*kind.findall(operands), *kind.findall(out)) for operands, out in lines}


@pytest.mark.parametrize("name", MODELS)
def test_all_matmuls_have_narrow_operands_and_wide_sums_on_cpu(name):
    narrow = products(name, "cpu", but_for=WINOGRAD)
    assert narrow == {("bf16", "bf16", "f32")}


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("name", MODELS)
def test_accelerators_get_narrow_operands(name, platform):
    # A convolution's gradients are defined for one type alone: there it is the
    # accelerator itself that adds up in float32.
    kinds = {("bf16", "bf16", "f32"), ("bf16", "bf16", "bf16")}
    assert products(name, platform) <= kinds


@pytest.mark.parametrize(
    "name, size",
    [
        ("gru", 3),
        *(  # Compiling convolutions takes half a minute.
            pytest.param(name, size, marks=pytest.mark.slow)
            for name in models.MODELS
            if "bfloat16" in models.precisions(name)
            for size in (1, 3)
        ),
    ],
)
def test_small_batches_and_members_of_vectorized_runs_train(name, size):
    state, step = make_step(name, "bfloat16")
    batch = jax.tree.map(lambda x: x[:size], BATCH)
    alone, _ = jax.jit(step)(state, batch)
    members = jax.tree.map(lambda x: jnp.stack([x, x]), (state, batch))
    together, _ = jax.jit(jax.vmap(step))(*members)
    for a, b in zip(
        jax.tree.leaves(alone.params), jax.tree.leaves(together.params), strict=True
    ):
        # Adam's first step is the rate by the sign of the gradient.
        assert np.mean(np.abs(a - b[1]) > 1e-4) < 0.05


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path):
    config = dataclasses.replace(make_mlp(), precision="bfloat16")
    train_and_evaluate(config, tmp_path / "whole")
    train_until(lambda losses, done: done >= 39, config, tmp_path / "stopped")
    train_and_evaluate(config, tmp_path / "stopped")
    assert without_times(tmp_path / "stopped") == without_times(tmp_path / "whole")
    assert_same_bits(saved(tmp_path / "stopped"), saved(tmp_path / "whole"))


@pytest.mark.parametrize(
    "model, settings",
    [("mlp", {}), ("gru", {"units": 16})],
)
@pytest.mark.slow
def test_the_first_losses_are_those_of_one_device(model, settings):
    losses = []
    for num_devices in (1, 2):
        config = make_config(
            model, "digits", precision="bfloat16", num_devices=num_devices, **settings
        )
        trainer = training_setup.prepare(config).trainer
        trainer.run(0, 10)
        losses.append(trainer.metrics()["loss"][:10])
    assert len(set(losses[0])) == 10
    np.testing.assert_allclose(*losses, rtol=0, atol=1e-2)


@pytest.mark.slow
def test_studies_compare_the_two(tmp_path, run_study):
    run_study(
        "accuracy.precision", "--dataset=digits", "--preset=quick", "--models=linear",
        "--seeds=0,1", cwd=tmp_path,
    )  # fmt: skip
    [row] = read_rows(tmp_path / "runs/precision/precision-digits.json")
    assert row["num_seeds"] == 2
    points = 100 * (row["bfloat16"] - row["float32"])
    assert row["difference"] == pytest.approx(points)
    run_study(
        "speed.precision", "--dataset=digits", "--models=rnn", "--rounds=2",
        "--turn_seconds=0", "--images=256", cwd=tmp_path,
    )  # fmt: skip
    [row] = read_rows(tmp_path / "runs/precision_speed/precision.json")
    assert len(row["seconds"]["bfloat16"]) == 2
    assert row["speedup"]["lowest"] <= row["speedup"]["median"]
    assert row["torch_autocast"] is None


def read_rows(path):
    return json.loads(path.read_text())["rows"]


def test_a_model_without_the_field_is_told(monkeypatch):
    class Plain(models.MODELS["linear"].__base__):
        num_classes: int

    monkeypatch.setitem(models.MODELS, "plain", Plain)
    assert models.make_model("plain", 10).num_classes == 10
    with pytest.raises(ConfigError, match="--precision=bfloat16: plain has no field"):
        models.make_model("plain", 10, "bfloat16")


@pytest.mark.parametrize(
    "info, is_warned",
    [
        ("flags : fpu avx512f avx512_bf16\n", False),
        ("flags : fpu avx2\nflags : fpu avx2\n", True),
        ("Features : fp asimd bf16\n", False),
        ("Features : fp asimd\n", True),
        ("nothing known\n", False),
        (None, False),
    ],
)
def test_a_processor_without_the_instructions_is_told_once(
    monkeypatch, tmp_path, info, is_warned
):
    path, told = tmp_path / "cpuinfo", []
    if info is not None:
        path.write_text(info)
    monkeypatch.setattr(devices, "_CPU_INFO", path)
    monkeypatch.setattr(devices.logging, "warning", lambda *text: told.append(text))
    devices.warn_of_slow_precision("float32")
    assert not told
    devices.warn_of_slow_precision("bfloat16")
    assert len(told) == is_warned
