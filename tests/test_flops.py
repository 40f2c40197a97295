"""Multiply-accumulates counted by hand."""

import jax
import jax.numpy as jnp
import pytest

from mnist_jax import flops, train_step
from mnist_jax.models.convolutional import CNN
from mnist_jax.models.dense import MLP, Linear
from mnist_jax.models.recurrent import LSTM, RNN
from mnist_jax.ops.platform import fusion_barrier

f32 = jnp.float32


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, f32)


def test_matmuls():
    assert flops.count_macs(jnp.matmul, shape(2, 3), shape(3, 5)) == 2 * 3 * 5
    batched = flops.count_macs(jnp.matmul, shape(7, 2, 3), shape(7, 3, 5))
    assert batched == 7 * 2 * 3 * 5
    assert flops.count_macs(lambda x: x + x, shape(2, 3)) == 0


def test_convolution():
    def convolve(x, k):
        return jax.lax.conv_general_dilated(
            x, k, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    count = flops.count_macs(convolve, shape(2, 8, 9, 3), shape(3, 3, 3, 5))
    assert count == 2 * 6 * 7 * 5 * 3 * 3 * 3


def test_a_scan_counts_as_often_as_it_runs():
    def loop(x, w):
        return jax.lax.scan(lambda x, _: (x @ w, None), x, length=11)[0]

    assert flops.count_macs(loop, shape(2, 3), shape(3, 3)) == 11 * 2 * 3 * 3
    inside = flops.count_macs(jax.jit(loop), shape(2, 3), shape(3, 3))
    assert inside == 11 * 2 * 3 * 3


def test_of_what_depends_on_the_platform_the_default_counts():
    def function(x):
        return jax.lax.platform_dependent(x, cpu=jnp.sin, default=lambda x: x @ x)

    assert flops.count_macs(function, shape(3, 3)) == 27


def test_of_a_fusion_barrier_what_is_run_counts():
    def function(x):
        return fusion_barrier(lambda x: x @ x, x)

    assert flops.count_macs(function, shape(3, 3)) == 27


K = 10


@pytest.mark.parametrize(
    "model, expected",
    [
        (Linear(K), 784 * K),
        (MLP(K, hidden_sizes=(128,)), 784 * 128 + 128 * K),
        (RNN(K, units=64), 28 * (28 + 64) * 64 + 64 * K),
        (LSTM(K, units=64), 28 * (28 + 64) * 4 * 64 + 64 * K),
        # Of the second layer's 11 x 11 outputs the last row and column are not pooled.
        (CNN(K), 26 * 26 * 9 * 32 + 11 * 11 * 9 * 32 * 64 + 1600 * K),
    ],
)
def test_models(model, expected):
    params = train_step.init_params_shapes(model, (28, 28, 1))
    work = flops.of_model(model, params, (28, 28, 1))
    assert work.macs == expected
    assert work.num_params == sum(leaf.size for leaf in jax.tree.leaves(params))
