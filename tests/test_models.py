import dataclasses
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_jax import augment, optim, train_step
from mnist_jax.config import ConfigError, make_config
from mnist_jax.models import MODELS, make_model, precisions
from mnist_jax.models.convolutional import CNN, LeNet5, ResNet
from mnist_jax.models.layers import Dense, drop
from mnist_jax.models.recurrent import (
    GRU,
    LSTM,
    RNN,
    RecurrentLayer,
    as_sequence,
    permutation,
)
from mnist_jax.training_setup import build_model

SHAPE, K = (28, 28, 1), 10
IMAGES = np.random.default_rng(0).uniform(size=(4, 28, 28, 1)).astype(np.float32)
KEYS = jax.random.split(jax.random.key(7), 4)


def init(model):
    # Compiled as a whole: one by one its operations take seconds.
    options = {"xla_backend_optimization_level": 0}
    init = jax.jit(model.init, compiler_options=options)
    return init(jax.random.key(0), IMAGES)["params"]


def of_preset(name):
    return build_model(make_config(name, "mnist"), SHAPE, K)


def apply(model, params, *inputs):
    """Compiled as a whole, too."""
    options = {"xla_backend_optimization_level": 0}
    return jax.jit(model.apply, compiler_options=options)({"params": params}, *inputs)


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


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


def as_flax_dense(params):
    return {**params, "kernel": params["kernel"].T}


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


def test_gru_equals_flax_rnn_over_rows():
    model = GRU(K, units=16)
    params = init(model)
    own = params["RecurrentLayer_0"]
    cut = lambda x, k: x[..., k * 16 : (k + 1) * 16]  # noqa: E731
    cell = {}
    for k, gate in enumerate("rzn"):
        cell["i" + gate] = {
            "kernel": cut(own["input_kernel"], k),
            "bias": cut(own["bias"], k),
        }
        cell["h" + gate] = {"kernel": cut(own["recurrent_kernel"], k)}
    cell["hn"]["bias"] = own["hidden_bias"]
    rnn = nn.RNN(nn.GRUCell(features=16), return_carry=True)
    carry, _ = rnn.apply({"params": {"cell": cell}}, IMAGES[..., 0])
    dense = as_flax_dense(params["Dense_0"])
    expected = nn.Dense(10).apply({"params": dense}, carry)
    got = apply(model, params, IMAGES)
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
def test_columns_read_the_transposed_image(name):
    rows = make_model(name, K, units=8, sequence="rows")
    columns = make_model(name, K, units=8, sequence="columns")
    variables = {"params": init(rows)}
    np.testing.assert_allclose(
        columns.apply(variables, IMAGES.transpose(0, 2, 1, 3)),
        rows.apply(variables, IMAGES),
        atol=1e-6,
    )


def test_pixels_are_read_row_by_row_as_784_steps():
    sequence = as_sequence(IMAGES, "pixels")
    assert sequence.shape == (784, 4, 1)
    np.testing.assert_array_equal(sequence[28 * 3 + 5, :, 0], IMAGES[:, 3, 5, 0])
    model = RNN(K, units=8, sequence="pixels")
    assert apply(model, init(model), IMAGES).shape == (4, 10)


def test_permuted_is_one_order_of_the_pixels():
    steps = np.asarray(as_sequence(IMAGES, "permuted"))
    plain = np.asarray(as_sequence(IMAGES, "pixels"))
    np.testing.assert_array_equal(steps, plain[permutation(784)])
    np.testing.assert_array_equal(np.sort(permutation(784)), np.arange(784))
    # So docs/usage.md says: it is not to change.
    assert permutation(784)[:5].tolist() == [693, 85, 647, 392, 765]


def test_reverse_layer_equals_forward_layer_on_reversed_sequence():
    sequence = np.random.default_rng(0).normal(size=(6, 3, 2)).astype(np.float32)
    for last_only in (True, False):
        make = lambda reverse: RecurrentLayer("lstm", 5, last_only, reverse)  # noqa: B023, E731
        variables = make(False).init(jax.random.key(0), sequence)
        forward = make(False).apply(variables, sequence[::-1])
        if not last_only:
            forward = forward[::-1]
        backward = make(True).apply(variables, sequence)
        np.testing.assert_allclose(backward, forward, atol=1e-6)


def test_layers_and_directions_change_the_parameters_as_expected():
    model = GRU(K, units=8, layers=2, bidirectional=True)
    gru = lambda inputs: 3 * 8 * (inputs + 8) + 3 * 8 + 8  # noqa: E731
    params = init(model)
    assert count(params) == 2 * gru(28) + 2 * gru(16) + 16 * 10 + 10
    assert apply(model, params, IMAGES).shape == (4, 10)


def test_forget_gate_starts_at_one():
    bias = init(LSTM(K, units=8))["RecurrentLayer_0"]["bias"]
    np.testing.assert_array_equal(bias, [0] * 8 + [1] * 8 + [0] * 16)


def test_recurrent_kernels_are_orthogonal_gate_by_gate():
    kernel = init(LSTM(K, units=8))["RecurrentLayer_0"]["recurrent_kernel"]
    for block in np.split(np.asarray(kernel), 4, axis=1):
        np.testing.assert_allclose(block @ block.T, np.eye(8), atol=1e-5)


# Compiled as a whole, too.
compiled_drop = jax.jit(drop, static_argnames=("rate", "layer", "axis"))


def test_dropout_drops_the_share_and_keeps_the_mean():
    x = jnp.ones((4, 50_000))
    dropped = np.asarray(compiled_drop(x, 0.3, KEYS, 0))
    assert set(np.unique(dropped)) == {np.float32(0), np.float32(1 / 0.7)}
    # Five standard deviations of a binomial share over 200,000 draws: 0.005.
    assert abs((dropped == 0).mean() - 0.3) < 0.005
    np.testing.assert_array_equal(compiled_drop(x, 0.3, None, 0), x)
    np.testing.assert_array_equal(compiled_drop(x, 0.0, KEYS, 0), x)


def test_dropout_of_an_image_depends_on_its_own_key_alone():
    x = jnp.ones((4, 100))
    whole = compiled_drop(x, 0.5, KEYS, 1)
    np.testing.assert_array_equal(whole[2:], compiled_drop(x[2:], 0.5, KEYS[2:], 1))
    assert not np.array_equal(whole, compiled_drop(x, 0.5, KEYS, 2)), "layers differ"
    # Time-major: the images are on axis 1.
    sequence = compiled_drop(jnp.ones((3, 4, 100)), 0.5, KEYS, 1, axis=1)
    part = compiled_drop(jnp.ones((3, 2, 100)), 0.5, KEYS[:2], 1, axis=1)
    np.testing.assert_array_equal(sequence[:, :2], part)


def test_what_dropout_drops_shows_no_pattern():
    """Nothing but chance between images, units, steps and layers."""
    positions = jnp.arange(256)
    steps = [
        train_step.image_keys(np.uint32(0), np.int32(i), positions) for i in (0, 1)
    ]
    ones = jnp.ones((256, 2048))
    masks = [compiled_drop(ones, 0.5, k, layer) for k in steps for layer in (0, 1)]
    signs = np.where(np.array(masks) == 0, -1.0, 1.0)
    # Six standard deviations of a mean of so many independent signs.
    for axis in (1, 2):
        limit = 6 / np.sqrt(signs.shape[axis])
        assert np.abs(signs.mean(axis)).max() <= limit
    for lag in (1, 2, 3, 32, 128):
        for axis in (1, 2):
            products = signs * np.roll(signs, lag, axis)
            assert abs(products.mean()) < 6 / np.sqrt(signs.size)
    for a, b in itertools.combinations(signs, 2):
        assert abs((a * b).mean()) < 6 / np.sqrt(a.size)


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
