import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mnist_jax.optim import OPTIMIZERS, SCHEDULES, make_optimizer, make_schedule


def update(params, grads, name, **settings):
    """The first update of `params`, at a constant rate."""
    optimizer = make_optimizer(name, optax.constant_schedule(0.1), **settings)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    return updates


KERNEL = {"kernel": jnp.full((1, 1), 2.0), "bias": jnp.full((1,), 2.0)}
GRADS = {"kernel": jnp.full((1, 1), 3.0), "bias": jnp.full((1,), 4.0)}


@pytest.mark.parametrize(
    "optimizer, expected",
    [
        ("sgd", (-0.3, -0.4)),
        ("adam", (-0.1, -0.1)),  # the first step has the length of the rate
        ("adamw", (-0.1, -0.1)),
        # The mean square starts at a tenth of the squared gradient.
        ("rmsprop", (-0.1 / 0.1**0.5, -0.1 / 0.1**0.5)),
    ],
)
def test_first_update_by_hand(optimizer, expected):
    got = update(KERNEL, GRADS, optimizer)
    np.testing.assert_allclose(got["kernel"], [[expected[0]]], rtol=1e-5)
    np.testing.assert_allclose(got["bias"], [expected[1]], rtol=1e-5)


def test_clipping_scales_the_gradient_to_the_norm():
    # The gradient (3, 4) has norm 5.
    got = update(KERNEL, GRADS, "sgd", clip_norm=1.0)
    np.testing.assert_allclose(got["kernel"], [[-0.06]], rtol=1e-6)
    np.testing.assert_allclose(got["bias"], [-0.08], rtol=1e-6)


def test_weight_decay_falls_on_kernels_alone():
    plain = update(KERNEL, GRADS, "sgd")
    decayed = update(KERNEL, GRADS, "sgd", weight_decay=0.5)
    # L2: the decay joins the gradient, 0.1 * 0.5 * 2.
    np.testing.assert_allclose(plain["kernel"] - decayed["kernel"], [[0.1]], rtol=1e-5)
    np.testing.assert_array_equal(plain["bias"], decayed["bias"])
    decoupled = update(KERNEL, GRADS, "adamw", weight_decay=0.5)
    np.testing.assert_allclose(decoupled["kernel"], [[-0.1 - 0.1]], rtol=1e-5)
    np.testing.assert_allclose(decoupled["bias"], [-0.1], rtol=1e-5)


@pytest.mark.parametrize("name, plain", [("adam", optax.adam), ("adamw", optax.adamw)])
def test_adam_is_that_of_optax(name, plain):
    rng = np.random.default_rng(0)
    params = {"kernel": rng.normal(size=(30, 20)).astype(np.float32)}
    schedule = make_schedule("onecycle", 0.1, 200)
    ours = make_optimizer(name, schedule, weight_decay=0.01 * (name == "adamw"))
    theirs = plain(schedule) if name == "adam" else plain(schedule, weight_decay=0.01)
    states = ours.init(params), theirs.init(params)
    updates = jax.jit(ours.update), jax.jit(theirs.update)
    # From single precision's smallest gradients, where eps decides, to large ones.
    for exponent in np.linspace(-12, 4, 200):
        scale = np.float32(10.0**exponent)
        grads = {"kernel": scale * rng.normal(size=(30, 20)).astype(np.float32)}
        (got, mine), (expected, other) = (
            one(grads, state, params)
            for one, state in zip(updates, states, strict=True)
        )
        states = mine, other
        got, expected = got["kernel"], expected["kernel"]
        close = 1e-5 * np.abs(expected).max()  # decay may cancel single updates
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=close)


def test_schedules_begin_peak_and_end_where_they_should():
    constant = make_schedule("constant", 0.1, 100)
    assert constant(0) == constant(99) == pytest.approx(0.1)
    cosine = make_schedule("cosine", 0.1, 100)
    assert cosine(0) == pytest.approx(0.1)
    assert cosine(50) == pytest.approx(0.05)
    assert cosine(100) == pytest.approx(0, abs=1e-8)
    onecycle = make_schedule("onecycle", 0.1, 100)
    assert onecycle(0) == pytest.approx(0.1 / 25)
    assert onecycle(30) == pytest.approx(0.1)
    assert onecycle(100) < 1e-5


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_proportional_to_its_rate(name):
    """Vectorized runs of several rates share one schedule."""
    one, ten = (make_schedule(name, rate, 50) for rate in (1.0, 10.0))
    for step in (0, 7, 15, 30, 49):
        assert ten(step) == pytest.approx(10 * float(one(step)), rel=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_decay_that_is_traced_is_the_same_as_a_number(name):
    """Vectorized runs have it as an argument of their program."""

    def decayed(decay):
        return update(KERNEL, GRADS, name, weight_decay=decay)

    plain, traced = decayed(0.5), jax.jit(decayed)(jnp.float32(0.5))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), plain, traced
    )
