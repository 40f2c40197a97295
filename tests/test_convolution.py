"""Convolution with max-pooling against XLA's own, values and gradients."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_jax.ops import convolution
from mnist_jax.ops.convolution import conv_pool, convolve, max_pool

# (images, kernel): one channel, several, odd sizes whose last row no window covers,
# and a kernel that is not square.
SHAPES = [
    ((3, 28, 28, 1), (3, 3, 1, 5)),
    ((3, 13, 13, 4), (3, 3, 4, 6)),
    ((2, 9, 12, 2), (2, 5, 2, 3)),
    ((2, 8, 7, 1), (3, 2, 1, 2)),
]


def draw(shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def reference(images, kernel):
    """XLA's convolution and Flax's pooling by reduce_window."""
    return nn.max_pool(convolve(images, kernel), (2, 2), strides=(2, 2))


@pytest.mark.parametrize("images_shape, kernel_shape", SHAPES)
def test_values_equal_xla(images_shape, kernel_shape):
    images, kernel = draw(images_shape, 0), draw(kernel_shape, 1)
    expected = reference(images, kernel)
    np.testing.assert_allclose(conv_pool(images, kernel), expected, atol=1e-5)
    np.testing.assert_allclose(max_pool(convolve(images, kernel)), expected, atol=1e-6)


@pytest.mark.parametrize("images_shape, kernel_shape", SHAPES)
def test_gradients_equal_xla(images_shape, kernel_shape):
    images, kernel = draw(images_shape, 0), draw(kernel_shape, 1)
    weights = draw(reference(images, kernel).shape, 2)

    def loss(op, images, kernel):
        return (op(images, kernel) * weights).sum()

    expected = jax.grad(functools.partial(loss, reference), (0, 1))(images, kernel)
    for op in (conv_pool, lambda x, k: max_pool(convolve(x, k))):
        got = jax.jit(jax.grad(functools.partial(loss, op), (0, 1)))(images, kernel)
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


def test_a_tie_passes_its_gradient_to_one_place():
    images = jnp.ones((1, 4, 4, 2))
    kernel = jnp.ones((1, 1, 2, 1))
    grad = jax.grad(lambda x: conv_pool(x, kernel).sum())(images)
    # Four windows of four equal values: each window's gradient arrives once.
    assert grad[..., 0].sum() == 4
    np.testing.assert_array_equal(np.unique(grad), [0, 1])


def test_vmap_over_kernels_equals_single_kernels():
    images, kernels = draw((3, 10, 10, 2), 0), draw((4, 3, 3, 2, 5), 1)
    grad = jax.grad(lambda k: (conv_pool(images, k) ** 2).sum())
    together = jax.jit(jax.vmap(grad))(kernels)
    for one, kernel in zip(together, kernels, strict=True):
        expected = grad(kernel)
        np.testing.assert_allclose(
            one, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max()
        )


def test_same_under_pmap():
    images, kernel = draw((2, 3, 12, 12, 2), 0), draw((3, 3, 2, 4), 1)
    together = jax.pmap(conv_pool, in_axes=(0, None))(images, kernel)
    alone = jnp.stack([conv_pool(x, kernel) for x in images])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_other_platforms_take_xla_kernels(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("the CPU kernel was called")

    monkeypatch.setattr(convolution, "_conv_pool", refuse)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    images, kernel = draw((3, 28, 28, 1), 0), draw((3, 3, 1, 5), 1)
    np.testing.assert_allclose(
        conv_pool(images, kernel), reference(images, kernel), atol=1e-6
    )
