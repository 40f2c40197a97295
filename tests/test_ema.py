"""The moving average of the weights, and averages over views of an image."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from runs_of_launch import assert_same_bits, assert_same_run, make_mlp, train_until

from mnist_jax import optim, predict
from mnist_jax.models import make_model
from mnist_jax.storage import records
from mnist_jax.storage.stored_run import require_config
from mnist_jax.train_step import (
    VIEWS,
    Batch,
    image_keys,
    init_state,
    make_eval_step,
    make_train_step,
)
from mnist_jax.training import train_and_evaluate
from mnist_jax.training_setup import prepare
from mnist_jax.vectorized import VectorizedRuns

RNG = np.random.default_rng(0)


def make(**settings):
    """Without what is slow to compile."""
    return make_mlp(augment="none", dropout=0.0, **settings)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed run with an average."""
    workdir = tmp_path_factory.mktemp("whole")
    train_and_evaluate(make(ema_decay=0.9), workdir)
    return workdir


def test_the_average_by_hand():
    model, optimizer = make_model("linear", 10), optax.sgd(0.5)
    state = init_state(model, optimizer, 0, (4, 4, 1), has_ema=True)
    step = jax.jit(make_train_step(model, optimizer, ema_decay=0.3))
    plain = init_state(model, optimizer, 0, (4, 4, 1))
    plain_step = jax.jit(make_train_step(model, optimizer))
    assert plain.eval_params is plain.params
    average = np.asarray(state.params["Dense_0"]["kernel"], np.float64)
    for i in range(6):
        images = RNG.integers(0, 256, (8, 4, 4, 1), np.uint8)
        keys = image_keys(np.uint32(0), np.int32(i), np.arange(8))
        batch = Batch(images, np.arange(8, dtype=np.int32), keys)
        state, _ = step(state, batch)
        plain, _ = plain_step(plain, batch)
        decay = min(0.3, (1 + i) / (10 + i))
        kernel = np.asarray(plain.params["Dense_0"]["kernel"])
        average = decay * average + (1 - decay) * kernel
        np.testing.assert_allclose(
            state.eval_params["Dense_0"]["kernel"], average, atol=1e-6
        )
    # Training itself is not changed.
    np.testing.assert_allclose(state.params["Dense_0"]["kernel"], kernel, atol=1e-6)


def test_the_average_is_what_is_evaluated_and_saved(whole):
    config = require_config(whole).config
    setup = prepare(config)
    for epoch in range(config.epochs):
        setup.trainer.run_epoch(epoch)
    state = setup.trainer.fetch_state()
    classifier = predict.load_classifier(whole)
    assert_same_bits(jax.device_get(classifier.params), state.ema_params)
    different = jax.tree.map(lambda a, b: (a != b).any(), *state[1:4:2])
    assert all(jax.tree.leaves(different))
    found = records.read_predictions(whole).probabilities
    images = setup.dataset.test_images
    np.testing.assert_allclose(predict.predict(whole, images), found, atol=1e-6)


def test_a_stopped_run_goes_on_to_the_same_bits(whole, tmp_path):
    config = make(ema_decay=0.9)
    train_until(lambda losses, done: done >= 30, config, tmp_path)
    train_and_evaluate(config, tmp_path)
    assert_same_run(tmp_path, whole)


def test_the_same_on_one_device(whole, tmp_path):
    train_and_evaluate(make(ema_decay=0.9, num_devices=1), tmp_path)
    one, two = (predict.load_classifier(x).params for x in (tmp_path, whole))
    for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_a_run_can_start_from_another_with_an_average(whole, tmp_path):
    config = make(init_from=str(whole), ema_decay=0.9, epochs=1, seed=7)
    result = train_and_evaluate(config, tmp_path)
    assert result["test_accuracy"] > 0.5


@pytest.mark.slow
def test_members_are_as_solo_runs(tmp_path):
    configs = [make(ema_decay=0.9, seed=seed, epochs=2) for seed in (0, 1)]
    runs = VectorizedRuns(configs)
    runs.train_epoch()
    runs.save(tmp_path / "half", "test")
    runs.train_epoch()
    again = VectorizedRuns(configs)
    again.restore(tmp_path / "half", "test", 1, (0, 1), 2)
    again.train_epoch()
    for config, ours, resumed in zip(
        configs, runs.params(), again.params(), strict=True
    ):
        assert_same_bits(ours, resumed)
        train_and_evaluate(config, tmp_path / f"{config.seed}")
        solo = predict.load_classifier(tmp_path / f"{config.seed}").params
        for one, other in zip(
            jax.tree.leaves(ours), jax.tree.leaves(solo), strict=True
        ):
            np.testing.assert_allclose(one, other, atol=1e-4)


def test_views_are_moved_by_a_pixel():
    assert len(set(VIEWS)) == 9 and VIEWS[0] == (0, 0)
    assert max(max(map(abs, view)) for view in VIEWS) == 1
    model = make_model("linear", 10)
    images = np.zeros((3, 6, 6, 1), np.uint8)
    images[:, 2:4, 2:4] = RNG.integers(1, 256, (3, 2, 2, 1))
    params = {"Dense_0": {"kernel": RNG.normal(size=(10, 36)), "bias": np.zeros(10)}}
    for num_views in (1, 2, 5, 9):
        got = jax.nn.softmax(make_eval_step(model, num_views)(params, images))
        each = [
            jax.nn.softmax(
                make_eval_step(model)(params, np.roll(images, (-y, -x), (1, 2)))
            )
            for y, x in VIEWS[:num_views]
        ]
        np.testing.assert_allclose(got, np.mean(each, axis=0), atol=1e-5)


def test_views_are_part_of_the_run(tmp_path):
    config = make(epochs=1, eval_views=5)
    assert config.differences(make(epochs=1)) == ["eval_views"]
    result = train_and_evaluate(config, tmp_path)
    evaluated = predict.evaluate(tmp_path)
    assert evaluated.scores["test"]["accuracy"] == result["test_accuracy"]
    one = predict.evaluate(tmp_path, eval_views=1).scores["test"]["loss"]
    assert one != pytest.approx(result["test_loss"], rel=1e-6)
    assert require_config(tmp_path).config.eval_views == 5


def test_views_of_another_number_are_scored_by_the_command(forked, tmp_path):
    config = make(epochs=1)
    train_and_evaluate(config, tmp_path / "run")
    outputs = []
    for flags in ((), ("--eval_views=9",)):
        done = forked("--mode=evaluate", "--workdir=run", *flags, cwd=tmp_path)
        assert done.code == 0, done.errors
        outputs.append(done.output)
    assert outputs[0] != outputs[1]
    for number in ("0", "10"):
        flag = f"--eval_views={number}"
        done = forked("--mode=evaluate", "--workdir=run", flag, cwd=tmp_path)
        assert (done.code, done.output) == (1, "")
        assert done.errors.startswith(f"error: {flag}: expected") and (
            done.errors.count("\n") == 1
        )
    done = forked("--mode=plot", "--workdir=run", "--eval_views=9", cwd=tmp_path)
    assert done.code == 1 and "--eval_views has no effect with" in done.errors


def test_warm_up_rises_to_a_cosine():
    schedule = optim.make_schedule("warmup_cosine", 0.1, 200)
    steps = jnp.arange(200)
    rates = np.asarray(jax.vmap(schedule)(steps))
    cosine = np.asarray(jax.vmap(optax.cosine_decay_schedule(0.1, 200))(steps))
    assert 0 < rates[0] < 0.011 and np.all(np.diff(rates[:10]) > 0)
    np.testing.assert_allclose(rates[10:], cosine[10:], rtol=1e-6)
    for steps in (1, 2):
        assert optim.make_schedule("warmup_cosine", 0.1, steps)(0) > 0


def test_an_average_is_another_run():
    config = make()
    other = dataclasses.replace(config, ema_decay=0.99)
    assert config.differences(other) == ["ema_decay"]
