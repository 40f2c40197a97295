"""Multiplications counted by hand."""

import jax
import jax.numpy as jnp
import pytest

from mnist_jax import cost, models

f32 = jnp.float32


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, f32)


def test_products():
    assert cost.multiplications(jnp.matmul, shape(2, 3), shape(3, 5)) == 2 * 3 * 5
    batched = cost.multiplications(jnp.matmul, shape(7, 2, 3), shape(7, 3, 5))
    assert batched == 7 * 2 * 3 * 5
    assert cost.multiplications(lambda x: x + x, shape(2, 3)) == 0


def test_convolution():
    def convolve(x, k):
        return jax.lax.conv_general_dilated(
            x, k, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    count = cost.multiplications(convolve, shape(2, 8, 9, 3), shape(3, 3, 3, 5))
    assert count == 2 * 6 * 7 * 5 * 3 * 3 * 3


def test_a_scan_counts_as_often_as_it_runs():
    def loop(x, w):
        return jax.lax.scan(lambda x, _: (x @ w, None), x, length=11)[0]

    assert cost.multiplications(loop, shape(2, 3), shape(3, 3)) == 11 * 2 * 3 * 3
    inside = cost.multiplications(jax.jit(loop), shape(2, 3), shape(3, 3))
    assert inside == 11 * 2 * 3 * 3


@pytest.mark.parametrize(
    "model, expected",
    [
        (models.Linear(), 784 * 10),
        (models.MLP(hidden_sizes=(128,)), 784 * 128 + 128 * 10),
        # 28 pixels and the 1 that the biases are multiplied with.
        (models.RNN(units=64), 28 * (29 + 64) * 64 + 64 * 10),
        (models.LSTM(units=64), 28 * (29 + 64) * 4 * 64 + 64 * 10),
    ],
)
def test_models(model, expected):
    image = jnp.zeros((1, 28, 28, 1))
    variables = model.init(jax.random.key(0), image)
    assert cost.multiplications(model.apply, variables, image) == expected
