"""Convolution of each map by itself, against XLA's grouped one."""

import jax
import numpy as np
import pytest

from mnist_jax.ops.depthwise import depthwise


def reference(maps, kernel, dilation):
    return jax.lax.conv_general_dilated(
        maps,
        kernel.transpose(1, 2, 0)[:, :, None],
        (1, 1),
        "SAME",
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("CHWN", "HWIO", "CHWN"),
        feature_group_count=len(kernel),
    )


def draw(shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def assert_equals_xla(maps, kernel, dilation=1):
    expected, pull_back = jax.vjp(lambda *x: reference(*x, dilation), maps, kernel)
    weights = draw(expected.shape, 2)

    @jax.jit
    def value_and_grads(maps, kernel):
        value, pull_back = jax.vjp(lambda *x: depthwise(*x, dilation), maps, kernel)
        return value, *pull_back(weights)

    got = value_and_grads(maps, kernel)
    for a, b in zip(got, [expected, *pull_back(weights)], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize(
    "shape, dilation",
    [
        ((3, 13, 13, 4), 1),
        ((3, 13, 13, 4), 4),
        ((2, 1, 6, 3), 1),
        ((2, 3, 5, 3), 3),
        ((2, 5, 40, 2), 2),
    ],
)
def test_value_and_gradients_equal_xla(shape, dilation):
    """Also of one row, of taps that are all outside, and of more columns than are
    written out."""
    assert_equals_xla(draw(shape, 0), draw((shape[0], 3, 3), 1), dilation)


@pytest.mark.parametrize("dilation", [1, 2])
def test_what_accelerators_get_equals_xla(on_accelerators, dilation):
    assert_equals_xla(draw((3, 7, 6, 4), 0), draw((3, 3, 3), 1), dilation)


def test_vmap_over_kernels_equals_single_kernels():
    maps, kernels = draw((2, 6, 5, 3), 0), draw((4, 2, 3, 3), 1)
    grad = jax.grad(lambda k: (depthwise(maps, k) ** 2).sum())
    together = jax.jit(jax.vmap(grad))(kernels)
    for one, kernel in zip(together, kernels, strict=True):
        expected = jax.jit(grad)(kernel)
        np.testing.assert_allclose(one, expected, rtol=1e-5)
