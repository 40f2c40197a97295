"""Batch normalisation: its formulas, its groups, and the averages that it keeps."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from runs_of_launch import assert_same_run, train_until

from mnist_jax import predict, train_step
from mnist_jax.config import make_config
from mnist_jax.models import make_model
from mnist_jax.models.layers import BatchNorm
from mnist_jax.moving_averages import STATISTICS
from mnist_jax.ops.normalization import batch_norm
from mnist_jax.training import train_and_evaluate
from mnist_jax.training_setup import prepare
from mnist_jax.vectorized import VectorizedRuns

RNG = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


@pytest.mark.parametrize("num_groups", [1, 3])
def test_values_and_gradients(num_groups):
    x, weights = normal(5, 4, 7, 12) + 3, normal(5, 4, 7, 12)
    gain, bias = normal(7), normal(7)

    def expected(x, gain, bias):
        groups = x.reshape(5, 4, 7, num_groups, -1)
        mean = groups.mean((0, 1, 4), keepdims=True)
        variance = groups.var((0, 1, 4), keepdims=True)
        groups = (groups - mean) / jnp.sqrt(variance + 1e-5)
        y = gain[:, None] * groups.reshape(x.shape) + bias[:, None]
        return y, mean[0, 0, ..., 0], variance[0, 0, ..., 0]

    def found(x, gain, bias):
        return batch_norm(x, gain, bias, num_groups)

    arrays = x, gain, bias
    with jax.disable_jit():  # of the reference
        values = expected(*arrays)
        grads = jax.grad(lambda *a: (expected(*a)[0] * weights).sum(), (0, 1, 2))
        grads = grads(*arrays)
    own_grads = jax.jit(jax.grad(lambda *a: (found(*a)[0] * weights).sum(), (0, 1, 2)))
    for ours, theirs in zip(jax.jit(found)(*arrays), values, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    for ours, theirs in zip(own_grads(*arrays), grads, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_members_side_by_side():
    x, weights = normal(3, 5, 4, 7, 12), normal(3, 5, 4, 7, 12)
    gain, bias = normal(3, 7), normal(3, 7)

    def grads(x, weights, gain, bias):
        def loss(*arrays):
            return (batch_norm(*arrays, 3)[0] * weights).sum()

        return jax.grad(loss, (0, 1, 2))(x, gain, bias)

    together = jax.jit(jax.vmap(grads))(x, weights, gain, bias)
    for i in range(3):
        alone = jax.jit(grads)(x[i], weights[i], gain[i], bias[i])
        for ours, theirs in zip(together, alone, strict=True):
            np.testing.assert_allclose(ours[i], theirs, atol=1e-4)


@pytest.mark.parametrize("batch, size", [(128, 64), (96, 48), (100, 50), (7, 7)])
def test_layer_takes_the_largest_equal_parts_of_64_images_at_most(batch, size):
    x, layer = normal(2, 3, 4, batch), BatchNorm()
    params = layer.init(jax.random.key(0), x, True)
    found, _ = layer.apply(params, x, True, mutable=[STATISTICS])
    first, _ = layer.apply(params, x[..., :size], True, mutable=[STATISTICS])
    np.testing.assert_allclose(found[..., :size], first, atol=1e-5)
    assert np.abs(np.mean(found[..., :size], (0, 1, 3))).max() < 1e-5


def test_layer_is_that_of_flax():
    x = normal(3, 2, 5, 64)
    theirs, ours = nn.BatchNorm(use_running_average=False), BatchNorm()
    params = ours.init(jax.random.key(0), x, False)["params"]
    got, sown = ours.apply({"params": params}, x, True, mutable=[STATISTICS])
    variables = theirs.init(jax.random.key(0), x.transpose(3, 0, 1, 2))
    expected, _ = theirs.apply(
        variables, x.transpose(3, 0, 1, 2), mutable=["batch_stats"]
    )
    np.testing.assert_allclose(got, expected.transpose(1, 2, 3, 0), atol=1e-5)

    # With what it measured in place of the averages, the same without the batch.
    params = params | sown[STATISTICS]
    one = ours.apply({"params": params}, x[..., :1], False)
    np.testing.assert_allclose(one, got[..., :1], atol=1e-5)


def test_the_step_moves_averages_and_the_optimizer_does_not():
    settings = dict(features=(3,), blocks=1, batch_norm=True, dropout=0.0)
    model = make_model("cnn", 10, **settings)
    optimizer = optax.adamw(0.1, weight_decay=0.5)
    state = train_step.init_state(model, optimizer, 0, (10, 10, 1))
    step = jax.jit(train_step.make_train_step(model, optimizer))
    expected = {"mean": np.zeros(3), "variance": np.ones(3)}
    for i in range(3):
        images = RNG.integers(0, 256, (128, 10, 10, 1), np.uint8)
        keys = train_step.image_keys(np.uint32(0), np.int32(i), np.arange(128))
        batch = train_step.Batch(images, np.arange(128, dtype=np.int32) % 10, keys)
        kernel = state.params["ConvPool_0"]["kernel"]
        maps = jax.lax.conv(
            jnp.asarray(images / 255, jnp.float32).transpose(0, 3, 1, 2),
            kernel.transpose(3, 2, 0, 1),
            (1, 1),
            "VALID",
        )
        maps = maps.reshape(2, 64, 3, 4, 2, 4, 2).max((4, 6))
        measured = {
            "mean": maps.mean((0, 1, 3, 4)),
            "variance": maps.var((1, 3, 4)).mean(0),
        }
        state, _ = step(state, batch)
        decay = (1 + i) / (10 + i)
        for name, average in expected.items():
            expected[name] = decay * average + (1 - decay) * np.asarray(measured[name])
            found = state.params["ConvPool_0"]["BatchNorm_0"][name]
            np.testing.assert_allclose(found, expected[name], atol=1e-5)


def make(**settings):
    return make_config(
        "cnn",
        "digits",
        batch_norm=True,
        features=(4, 6),
        batch_size=128,
        epochs=2,
        augment="none",
        dropout=0.0,
        optimizer="sgd",
        **settings,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed run, on a device for each core."""
    workdir = tmp_path_factory.mktemp("whole")
    train_and_evaluate(make(ema_decay=0.9), workdir)
    return workdir


def test_a_run_s_predictions_are_by_the_averages(whole):
    classifier = predict.load_classifier(whole)
    means = classifier.params["ConvPool_0"]["BatchNorm_0"]["mean"]
    assert np.all(np.abs(means) > 1e-4)
    images = RNG.integers(0, 256, (3, 28, 28, 1), np.uint8)
    together = predict.predict(whole, images)
    for i in range(3):
        alone = predict.predict(whole, images[i : i + 1])
        np.testing.assert_allclose(alone[0], together[i], atol=1e-6)


def test_a_run_takes_no_more_devices_than_have_64_images_each():
    """With fewer on each it would normalise over other images, and learn otherwise."""

    def count(**settings):
        config = make_config("cnn", "digits", batch_size=128, **settings)
        return len(prepare(config).trainer.devices)

    assert (count(), count(batch_norm=True)) == (4, 2)


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_bits(whole, tmp_path):
    config = make(ema_decay=0.9)
    train_until(lambda losses, done: done >= 5, config, tmp_path)
    train_and_evaluate(config, tmp_path)
    assert_same_run(tmp_path, whole)


@pytest.mark.slow
def test_devices_and_members_agree():
    """For a few steps: differences in the order of summation grow with each."""
    configs = [make(seed=seed) for seed in (0, 1)]
    trainers = [
        prepare(dataclasses.replace(configs[0], num_devices=num_devices)).trainer
        for num_devices in (1, 2)
    ]
    trainers.append(VectorizedRuns(configs).trainer)
    params = []
    for trainer in trainers:
        trainer.run(0, 4)
        params.append(trainer.fetch_state().params)
    params[2] = jax.tree.map(lambda x: x[0], params[2])
    for other in params[1:]:
        for ours, theirs in zip(
            jax.tree.leaves(params[0]), jax.tree.leaves(other), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, atol=2e-5)
