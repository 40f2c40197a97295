"""Convolution, alone and with pooling, against XLA's own: values and gradients."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_jax.ops import plain_convolution
from mnist_jax.ops.convolution import conv_mean, conv_pool, conv_pool_relu, convolve
from mnist_jax.ops.pooling import max_pool

# (images, kernel): one channel, several, odd sizes whose last row no window covers,
# kernels that are not square, and 3x3, which Winograd's products do.
SHAPES = [
    ((28, 28, 1, 3), (3, 3, 1, 5)),
    ((13, 13, 4, 3), (3, 3, 4, 6)),
    ((8, 11, 4, 2), (3, 3, 4, 6)),
    ((9, 12, 2, 2), (2, 5, 2, 3)),
    ((8, 7, 1, 2), (3, 2, 1, 2)),
    ((12, 12, 6, 2), (5, 5, 6, 16)),
]


def draw(shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def maps(images, kernel):
    """XLA's convolution, in its own layout."""
    return jax.lax.conv_general_dilated(
        images.transpose(3, 0, 1, 2),
        kernel,
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def reference_convolve(images, kernel):
    return maps(images, kernel).transpose(1, 2, 3, 0)


def reference_max(images, kernel):
    """Flax's pooling, by reduce_window."""
    pooled = nn.max_pool(maps(images, kernel), (2, 2), strides=(2, 2))
    return pooled.transpose(1, 2, 3, 0)


def reference_mean(images, kernel):
    pooled = nn.avg_pool(maps(images, kernel), (2, 2), strides=(2, 2))
    return pooled.transpose(1, 2, 3, 0)


# One of each kind for each way of pooling; the others take a minute to compile.
QUICK = {
    "conv_pool": (SHAPES[0], SHAPES[1], SHAPES[3]),
    "conv_mean": (SHAPES[0], SHAPES[5]),
    "convolve": (SHAPES[2], SHAPES[4]),
}

OPS = [
    pytest.param(conv_pool, reference_max, id="conv_pool"),
    pytest.param(conv_mean, reference_mean, id="conv_mean"),
    pytest.param(convolve, reference_convolve, id="convolve"),
]


@functools.partial(jax.jit, static_argnums=0)
def value_and_grads(op, images, kernel):
    """Of a sum of the outputs, each with a weight of its own."""
    value, pull_back = jax.vjp(op, images, kernel)
    weights = jnp.sin(jnp.arange(value.size, dtype=jnp.float32)).reshape(value.shape)
    return value, *pull_back(weights)


CASES = [
    pytest.param(
        *op.values,
        *shapes,
        id=f"{op.id}-{'x'.join(map(str, shapes[0] + shapes[1][2:]))}",
        marks=[] if shapes in QUICK[op.id] else [pytest.mark.slow],
    )
    for op in OPS
    for shapes in SHAPES
]


@pytest.mark.parametrize("op, reference, images_shape, kernel_shape", CASES)
def test_value_and_gradients_equal_xla(op, reference, images_shape, kernel_shape):
    arrays = draw(images_shape, 0), draw(kernel_shape, 1)
    expected = value_and_grads(reference, *arrays)
    for a, b in zip(value_and_grads(op, *arrays), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize("images_shape, kernel_shape", [SHAPES[0], SHAPES[4]])
def test_the_fused_form_of_gpus_equals_xla(images_shape, kernel_shape):
    arrays = draw(images_shape, 0), draw(kernel_shape, 1)
    expected = value_and_grads(reference_max, *arrays)
    got = value_and_grads(plain_convolution.conv_pool, *arrays)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


def test_max_pool_equals_xla():
    arrays = draw((9, 12, 2, 2), 0), draw((2, 2, 2, 3), 1)
    pooled = jax.jit(lambda x, k: max_pool(convolve(x, k)))(*arrays)
    np.testing.assert_allclose(pooled, reference_max(*arrays), rtol=1e-5, atol=1e-5)


def test_a_tie_passes_its_gradient_to_one_place():
    images = jnp.ones((4, 4, 2, 1))
    kernel = jnp.ones((1, 1, 2, 1))
    grad = jax.jit(jax.grad(lambda x: conv_pool(x, kernel).sum()))(images)
    # Four windows of four equal values: each window's gradient arrives once.
    assert grad[:, :, 0].sum() == 4
    np.testing.assert_array_equal(np.unique(grad), [0, 1])


def test_nan_stays_nan():
    images, kernel = np.ones((8, 8, 2, 1), np.float32), np.ones((3, 3, 2, 1), "f")
    images[4, 4, 0] = np.nan
    assert np.isnan(jax.jit(conv_pool)(images, kernel)).any()


def test_max_pool_keeps_nan_at_each_place_of_a_window():
    """A comparison keeps it at some of them alone."""
    maps = draw((4, 6, 1, 4), 0)
    expected = np.zeros((2, 3, 1, 4), bool)
    for place, (y, x) in enumerate(np.ndindex(2, 2)):
        maps[2 + y, 2 + x, 0, place] = np.nan
        expected[1, 1, 0, place] = True
    np.testing.assert_array_equal(np.isnan(jax.jit(max_pool)(maps)), expected)


# The two others have the same parts.
POOLED = [OPS[0], *(pytest.param(*op.values, marks=pytest.mark.slow) for op in OPS[1:])]


@pytest.mark.parametrize("op, reference", POOLED)
def test_vmap_over_kernels_equals_single_kernels(op, reference):
    images, kernels = draw((10, 10, 2, 3), 0), draw((4, 3, 3, 2, 5), 1)
    grad = jax.grad(lambda k: (op(images, k) ** 2).sum())
    options = {"xla_backend_optimization_level": 0}  # to compile faster
    together = jax.jit(jax.vmap(grad), compiler_options=options)(kernels)
    grad = jax.jit(grad, compiler_options=options)
    for one, kernel in zip(together, kernels, strict=True):
        expected = grad(kernel)
        np.testing.assert_allclose(
            one, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max()
        )


@pytest.mark.parametrize("op, reference", POOLED)
def test_same_under_pmap(op, reference):
    images, kernel = draw((2, 12, 12, 2, 3), 0), draw((3, 3, 2, 4), 1)
    together = jax.pmap(op, in_axes=(0, None))(images, kernel)
    alone = jnp.stack([jax.jit(op)(x, kernel) for x in images])
    np.testing.assert_allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("op", [op.values[0] for op in OPS])
def test_accelerators_get_xla_kernels(op, platform):
    """Lowered for them on any machine, the program has one convolution, no matmul."""
    images, kernel = draw((28, 28, 2, 3), 0), draw((3, 3, 2, 5), 1)
    lowered = jax.jit(op).trace(images, kernel).lower(lowering_platforms=(platform,))
    text = lowered.as_text()
    assert text.count("stablehlo.convolution") == 1
    assert "stablehlo.dot_general" not in text


@pytest.mark.parametrize("op, reference", OPS)
@pytest.mark.parametrize("kernel_shape", [(3, 3, 1, 5), (3, 3, 2, 5)])
def test_what_accelerators_get_equals_xla(on_accelerators, op, reference, kernel_shape):
    """Their branch, taken on this machine."""
    images, kernel = draw((28, 28, kernel_shape[2], 3), 0), draw(kernel_shape, 1)
    expected = reference(images, kernel)
    got = jax.jit(lambda *arrays: op(*arrays))(images, kernel)  # traced anew
    np.testing.assert_allclose(got, expected, atol=2e-6)
    grads = jax.jit(lambda *arrays: value_and_grads.__wrapped__(op, *arrays))
    for a, b in zip(
        grads(images, kernel), value_and_grads(reference, images, kernel), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


def test_what_is_computed_again_on_gpus_has_the_same_gradients(on_accelerators):
    images, kernel, bias = draw((8, 8, 1, 3), 0), draw((3, 3, 1, 5), 1), draw((5,), 2)

    def plain(images, kernel, bias):
        return jax.nn.relu(reference_max(images, kernel) + bias[:, None])

    def grads(op):
        def loss(*arrays):
            return (op(*arrays) ** 2).sum()

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(images, kernel, bias)

    text = str(jax.make_jaxpr(jax.grad(lambda *x: conv_pool_relu(*x).sum()))(
        images, kernel, bias
    ))  # fmt: skip
    assert "remat" in text or "checkpoint" in text
    for a, b in zip(grads(conv_pool_relu), grads(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


def test_relu_of_gpus_has_the_gradient_of_jax():
    x = jnp.array([-1.0, 0.0, 2.0, jnp.nan])
    weights = jnp.array([3.0, 5.0, 7.0, 11.0])
    for function in (lambda relu: relu, jax.vmap):
        own, pull_back = jax.vjp(function(plain_convolution.relu), x)
        expected, expected_pull_back = jax.vjp(function(jax.nn.relu), x)
        np.testing.assert_array_equal(own, expected)
        np.testing.assert_array_equal(*pull_back(weights), *expected_pull_back(weights))


def test_fused_pooling_takes_the_first_of_equal_ones_and_keeps_nan():
    images = np.ones((6, 6, 1, 2), np.float32)
    run = jax.jit(jax.vjp, static_argnums=0)
    pooled, pull_back = run(plain_convolution.conv_pool, images, np.ones((1, 1, 1, 1)))
    assert np.all(pooled == 1)
    images_grad, kernel_grad = pull_back(jnp.ones_like(pooled))
    first = np.zeros((6, 6))
    first[::2, ::2] = 1
    np.testing.assert_array_equal(images_grad[..., 0, 0], first)
    assert kernel_grad == 18  # windows
    for place in ((0, 0), (1, 1)):
        images = np.ones((2, 2, 1, 1), np.float32)
        images[place] = np.nan
        assert np.isnan(plain_convolution.conv_pool(images, np.ones((1, 1, 1, 1), "f")))
