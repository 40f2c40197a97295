"""The models that were added for accuracy, against plain references."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_jax.models import make_model

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(3, 28, 28, 1)).astype(np.float32)
# Compiled as a whole, without optimization: one by one operations take seconds.
OPTIONS = {"xla_backend_optimization_level": 0}


def init(model, images=IMAGES):
    key = jax.random.key(0)
    params = jax.jit(model.init, compiler_options=OPTIONS)(key, images)["params"]
    # Gains, biases and the like start at 0 or 1, where a mistake would not show.
    leaves, treedef = jax.tree.flatten(params)
    noisy = [x + 0.1 * RNG.normal(size=x.shape).astype(np.float32) for x in leaves]
    return jax.tree.unflatten(treedef, noisy)


def apply(model, params, images=IMAGES, *keys):
    run = jax.jit(model.apply, compiler_options=OPTIONS)
    return np.asarray(run({"params": params}, images, *keys))


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def dense(x, params):
    return x @ params["kernel"].T + params["bias"]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru(sequence, params):
    """All states [T, B, H] of one direction, step by step in NumPy."""
    kernel, recurrent = params["input_kernel"], params["recurrent_kernel"]
    units, states = len(recurrent), []
    h = np.zeros((sequence.shape[1], units))
    for x in sequence:
        of_input = x @ kernel + params["bias"]
        of_state = h @ recurrent
        r, z = (
            sigmoid(of_input[:, i : i + units] + of_state[:, i : i + units])
            for i in (0, units)
        )
        own = of_state[:, 2 * units :] + params["hidden_bias"]
        n = np.tanh(of_input[:, 2 * units :] + r * own)
        h = (1 - z) * n + z * h
        states.append(h)
    return np.array(states)


def both_ways(sequence, params):
    """States of both directions at each place, [T, B, 2H]."""
    forwards = gru(sequence, params["RecurrentLayer_0"])
    backwards = gru(sequence[::-1], params["RecurrentLayer_1"])[::-1]
    return np.concatenate([forwards, backwards], -1)


def test_fourway_ends_at_all_four_sides():
    model = make_model("fourway", 10, units=5)
    params = init(model)
    pixels, last = IMAGES[..., 0], []
    for name, sequence in (
        ("BothWays_0", pixels.transpose(1, 0, 2)),
        ("BothWays_1", pixels.transpose(2, 0, 1)),
    ):
        states = both_ways(sequence, params[name])
        last += [states[-1, :, :5], states[0, :, 5:]]
    expected = dense(np.concatenate(last, -1), params["Dense_0"])
    np.testing.assert_allclose(apply(model, params), expected, atol=1e-4)


@pytest.mark.slow
def test_renet_reads_columns_and_then_rows_of_patches():
    model = make_model("renet", 10, units=3, layers=2)
    images = IMAGES[:, :12, :10]
    params = init(model, images)
    x = images  # [B, H, W, F]
    for layer in range(2):
        batch, height, width, _ = x.shape
        height, width = height // 2, width // 2
        patches = np.zeros((batch, height, width, 4 * x.shape[-1]))
        for row in range(height):
            for column in range(width):
                patch = x[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
                patches[:, row, column] = patch.reshape(batch, -1)
        down = np.zeros((batch, height, width, 6))
        for column in range(width):
            sequence = patches[:, :, column].swapaxes(0, 1)
            states = both_ways(sequence, params[f"BothWays_{2 * layer}"])
            down[:, :, column] = states.swapaxes(0, 1)
        x = np.zeros((batch, height, width, 6))
        for row in range(height):
            sequence = down[:, row].swapaxes(0, 1)
            states = both_ways(sequence, params[f"BothWays_{2 * layer + 1}"])
            x[:, row] = states.swapaxes(0, 1)
    expected = dense(x.reshape(len(x), -1), params["Dense_0"])
    np.testing.assert_allclose(apply(model, params, images), expected, atol=1e-4)


def test_tiny_equals_flax_convolutions():
    model = make_model("tiny", 10)
    params = init(model)
    assert count(params) == 692

    def convolve(x, kernel, groups=1, padding="VALID", dilation=1):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), padding, rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups,
        )  # fmt: skip

    x = convolve(IMAGES, params["kernel"]) + params["bias"]
    x = nn.relu(nn.max_pool(x, (2, 2), strides=(2, 2)))
    for i, dilation in enumerate((1, 1, 2, 4)):
        own = params[f"DilatedSeparable_{i}"]
        kernel = own["kernel"].transpose(1, 2, 0)[:, :, None]
        maps = convolve(x, kernel, x.shape[-1], "SAME", dilation)
        added = nn.relu(maps @ own["mixing"].T + own["bias"])
        x = x + added if i else added
    expected = dense(np.asarray(x.mean((1, 2))), params["Dense_0"])
    np.testing.assert_allclose(apply(model, params), expected, atol=1e-4)


def test_mlp_with_normalisation():
    model = make_model("mlp", 10, hidden_sizes=(7, 5), layer_norm=True)
    params = init(model)
    x = IMAGES.reshape(3, -1)
    for i in range(2):
        x = dense(x, params[f"Dense_{i}"])
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        own = params[f"LayerNorm_{i}"]
        x = np.maximum(x * own["scale"] + own["bias"], 0)
    expected = dense(x, params["Dense_2"])
    np.testing.assert_allclose(apply(model, params), expected, atol=1e-4)


def test_cnn_with_residual_blocks():
    model = make_model("cnn", 10, features=(4, 6), blocks=2, dropout=0.5)
    params = init(model)

    def convolve(x, kernel, padding):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    x = jnp.asarray(IMAGES)
    for stage in range(2):
        own = params[f"ConvPool_{stage}"]
        x = convolve(x, own["kernel"], "VALID") + own["bias"]
        x = nn.relu(nn.max_pool(x, (2, 2), strides=(2, 2)))
        for block in range(2):
            own = params[f"Residual_{2 * stage + block}"]
            f = convolve(x, own["kernel_0"], "SAME") + own["bias_0"]
            f = convolve(nn.relu(f), own["kernel_1"], "SAME") + own["bias_1"]
            x = nn.relu(x + own["gain"] * f)
    # Before they become a vector, maps are [rows, columns, maps].
    expected = dense(np.asarray(x).reshape(3, -1), params["Dense_0"])
    np.testing.assert_allclose(apply(model, params), expected, atol=1e-3)


@pytest.mark.parametrize(
    "name, settings",
    [
        ("fourway", dict(units=4, dropout=0.5)),
        pytest.param(
            "cnn",
            dict(features=(4, 6), blocks=1, dropout=0.5),
            marks=pytest.mark.slow,
        ),
        pytest.param("renet", dict(units=3, dropout=0.5), marks=pytest.mark.slow),
    ],
)
def test_masks_are_drawn_by_each_images_key(name, settings):
    model = make_model(name, 10, **settings)
    params = init(model)
    keys = jax.random.split(jax.random.key(3), 3)
    dropped = apply(model, params, IMAGES, keys)
    assert not np.allclose(dropped, apply(model, params))
    alone = apply(model, params, IMAGES[1:], keys[1:])
    np.testing.assert_allclose(alone, dropped[1:], atol=1e-5)
    np.testing.assert_array_equal(dropped, apply(model, params, IMAGES, keys))
