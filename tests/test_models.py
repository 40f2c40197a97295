import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import IMAGES, SHAPE, K, apply, as_flax_dense, count, init

from mnist_jax import augment, optim, train_step
from mnist_jax.config import ConfigError, make_config
from mnist_jax.models import MODELS, make_model, precisions
from mnist_jax.models.convolutional import CNN, LeNet5, ResNet
from mnist_jax.models.layers import Dense
from mnist_jax.training_setup import build_model

KEYS = jax.random.split(jax.random.key(7), 4)


def of_preset(name):
    return build_model(make_config(name, "mnist"), SHAPE, K)


@pytest.mark.parametrize(
    "name, num_params",
    [
        ("linear", 784 * 10 + 10),
        ("mlp", 784 * 512 + 512 + 512 * 256 + 256 + 256 * 10 + 10),
        ("cnn", 34_826),
        ("lenet5", 156 + 2_416 + 48_120 + 10_164 + 850),
        (
            "resnet",
            (9 + 1) * 32
            + 2 * (9 * 32 + 1) * 32
            + 1
            + (9 * 32 + 1) * 64
            + 2 * (9 * 64 + 1) * 64
            + 1
            + 650,
        ),
        ("rnn", (28 + 128) * 128 + 128 + 1290),
        ("lstm", (28 + 128) * 512 + 512 + 1290),
        ("gru", (28 + 128) * 384 + 384 + 128 + 1290),
    ],
)
def test_preset_has_the_known_number_of_parameters(name, num_params):
    assert count(train_step.init_params_shapes(of_preset(name), SHAPE)) == num_params


def quick(*names):
    """All models; those that are not named take seconds to compile, and are slow."""
    slow = pytest.mark.slow
    return [n if n in names else pytest.param(n, marks=slow) for n in MODELS]


# The logits of the others are compared with Flax's below.
@pytest.mark.parametrize("name", quick("linear", "mlp", "rnn", "lstm"))
def test_logits_have_shape_and_are_repeatable(name):
    model = of_preset(name)
    params = init(model)
    logits = apply(model, params, IMAGES)
    assert logits.shape == (4, 10) and logits.dtype == jnp.float32
    again = apply(model, init(model), IMAGES)
    np.testing.assert_array_equal(logits, again)
    assert np.unique(np.asarray(logits)[:, 0]).size == 4, "images are told apart"


def test_dense_is_that_of_flax_from_the_first_values_on():
    key, x = jax.random.key(3), np.random.default_rng(0).normal(size=(2, 5, 7))
    params = Dense(4).init(key, x)["params"]
    expected, theirs = nn.Dense(4).init_with_output(key, x)
    np.testing.assert_array_equal(
        as_flax_dense(params)["kernel"], theirs["params"]["kernel"]
    )
    got = Dense(4).apply({"params": params}, x)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_cnn_equals_flax_convolutions():
    model = CNN(K, dropout=0.5)
    params = init(model)

    class Reference(nn.Module):
        @nn.compact
        def __call__(self, x):
            for features in (32, 64):
                x = nn.relu(nn.Conv(features, (3, 3), padding="VALID")(x))
                x = nn.max_pool(x, (2, 2), strides=(2, 2))
            return nn.Dense(10)(x.reshape(x.shape[0], -1))

    renamed = {name.replace("ConvPool", "Conv"): p for name, p in params.items()}
    renamed["Dense_0"] = as_flax_dense(params["Dense_0"])
    expected = Reference().apply({"params": renamed}, IMAGES)
    got = apply(model, params, IMAGES)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_lenet5_equals_flax_convolutions():
    model = LeNet5(K)
    params = init(model)

    class Reference(nn.Module):
        @nn.compact
        def __call__(self, x):
            for features, padding in ((6, "SAME"), (16, "VALID")):
                x = nn.Conv(features, (5, 5), padding=padding)(x)
                x = nn.tanh(nn.avg_pool(x, (2, 2), strides=(2, 2)))
            x = x.reshape(len(x), -1)
            for units in (120, 84):
                x = nn.tanh(nn.Dense(units)(x))
            return nn.Dense(10)(x)

    renamed = {
        name.replace("ConvMean", "Conv"): as_flax_dense(p) if "Dense" in name else p
        for name, p in params.items()
    }
    expected = Reference().apply({"params": renamed}, IMAGES)
    got = apply(model, params, IMAGES)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_resnet_equals_flax_convolutions_and_starts_as_the_identity():
    params = init(ResNet(K))
    for i in (0, 1):
        assert params[f"Residual_{i}"]["gain"] == 0
        params[f"Residual_{i}"]["gain"] = jnp.float32(0.5 + i)

    def conv(x, kernel, bias, padding):
        own = {"params": {"kernel": kernel, "bias": bias}}
        return nn.Conv(kernel.shape[-1], (3, 3), padding=padding).apply(own, x)

    x = IMAGES
    for i in (0, 1):
        first, block = params[f"ConvPool_{i}"], params[f"Residual_{i}"]
        x = conv(x, first["kernel"], first["bias"], "VALID")
        x = nn.relu(nn.max_pool(x, (2, 2), strides=(2, 2)))
        branch = nn.relu(conv(x, block["kernel_0"], block["bias_0"], "SAME"))
        branch = conv(branch, block["kernel_1"], block["bias_1"], "SAME")
        x = nn.relu(x + block["gain"] * branch)
    dense = as_flax_dense(params["Dense_0"])
    expected = nn.Dense(10).apply({"params": dense}, x.mean((1, 2)))
    got = apply(ResNet(K), params, IMAGES)
    np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize("name", quick("mlp", "gru"))
def test_dropout_acts_only_with_keys(name):
    if "dropout" not in {field.name for field in dataclasses.fields(MODELS[name])}:
        pytest.skip("it drops no units")
    model = make_model(name, K, dropout=0.5)
    params = init(model)
    plain = apply(model, params, IMAGES)
    assert not np.allclose(apply(model, params, IMAGES, KEYS), plain)
    without = apply(model.clone(dropout=0.0), params, IMAGES, KEYS)
    np.testing.assert_allclose(without, plain, atol=1e-6)


@pytest.mark.parametrize("name", quick("linear"))
def test_images_of_another_size_and_number_of_classes_train(name):
    """One step on images of 20x24 pixels of 26 classes lowers their loss."""
    shape, num_classes = (20, 24, 1), 26
    config = make_config(name, "mnist", learning_rate=1e-3)
    model = build_model(config, shape, num_classes)
    optimizer = optim.make_optimizer("sgd", lambda step: 1e-3)
    state = train_step.init_state(model, optimizer, 0, shape)
    step = train_step.make_train_step(model, optimizer, augmentation=augment.shift)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, num_classes, 8, np.int32)
    images = rng.integers(0, 256, (8, *shape), np.uint8)
    keys = jax.random.split(jax.random.key(0), 8)
    batch = train_step.Batch(images, labels, keys)
    step = jax.jit(step, compiler_options={"xla_backend_optimization_level": 0})
    before = jax.tree.map(np.asarray, state.params)
    state, measured = step(state, batch)
    # Close to the loss of a guess.
    assert measured["loss"] == pytest.approx(np.log(num_classes), rel=0.4)
    changed = jax.tree.map(lambda a, b: (a != b).any(), before, state.params)
    assert any(jax.tree.leaves(changed))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


@pytest.mark.parametrize("name, side", [("cnn", 9), ("lenet5", 11), ("resnet", 9)])
def test_images_too_small_for_a_model_are_told(name, side):
    config = make_config(name, "mnist")
    told = f"--model={name}: the {side}x{side} images of mnist are too small.*=mlp"
    with pytest.raises(ConfigError, match=told):
        build_model(config, (side, side, 1), 10)
    build_model(config, (side + 1, side + 1, 1), 10)


def test_an_error_of_a_models_own_is_not_taken_for_small_images(monkeypatch):
    class Broken(CNN):
        def __call__(self, images, keys=None):
            raise TypeError("of its own")

    monkeypatch.setitem(MODELS, "cnn", Broken)
    with pytest.raises(TypeError, match="of its own"):
        build_model(make_config("cnn", "mnist"), SHAPE, K)


def test_models_are_made_in_each_of_their_precisions():
    for name in MODELS:
        for precision in precisions(name):
            make_model(name, 10, precision)
    assert precisions("tiny") == ("float32",)
    assert precisions("cnn") == ("float32", "bfloat16")
