import flax.linen as nn
import jax
import numpy as np
import pytest
from small_models import IMAGES, K, apply, as_flax_dense, count, init

from mnist_jax.models import make_model
from mnist_jax.models.recurrent import (
    GRU,
    LSTM,
    RNN,
    RecurrentLayer,
    as_sequence,
    permutation,
)


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
