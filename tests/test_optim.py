import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mnist_jax.config import OPTIMIZERS, SCHEDULES, make_config
from mnist_jax.optim import make_optimizer, make_schedule


def update(params, grads, **settings):
    """The first update of `params`, at a constant rate."""
    settings = {"clip_norm": 0.0, "weight_decay": 0.0, **settings}
    config = make_config("gru", "mnist", **settings)
    optimizer = make_optimizer(config, optax.constant_schedule(0.1))
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
    got = update(KERNEL, GRADS, optimizer=optimizer)
    np.testing.assert_allclose(got["kernel"], [[expected[0]]], rtol=1e-5)
    np.testing.assert_allclose(got["bias"], [expected[1]], rtol=1e-5)


def test_clipping_scales_the_gradient_to_the_norm():
    # The gradient (3, 4) has norm 5.
    got = update(KERNEL, GRADS, optimizer="sgd", clip_norm=1.0)
    np.testing.assert_allclose(got["kernel"], [[-0.06]], rtol=1e-6)
    np.testing.assert_allclose(got["bias"], [-0.08], rtol=1e-6)


def test_weight_decay_falls_on_kernels_alone():
    plain = update(KERNEL, GRADS, optimizer="sgd")
    decayed = update(KERNEL, GRADS, optimizer="sgd", weight_decay=0.5)
    # L2: the decay joins the gradient, 0.1 * 0.5 * 2.
    np.testing.assert_allclose(plain["kernel"] - decayed["kernel"], [[0.1]], rtol=1e-5)
    np.testing.assert_array_equal(plain["bias"], decayed["bias"])
    decoupled = update(KERNEL, GRADS, optimizer="adamw", weight_decay=0.5)
    np.testing.assert_allclose(decoupled["kernel"], [[-0.1 - 0.1]], rtol=1e-5)
    np.testing.assert_allclose(decoupled["bias"], [-0.1], rtol=1e-5)


@pytest.mark.parametrize("name, plain", [("adam", optax.adam), ("adamw", optax.adamw)])
def test_adam_is_that_of_optax(name, plain):
    rng = np.random.default_rng(0)
    params = {"kernel": rng.normal(size=(30, 20)).astype(np.float32)}
    schedule = make_schedule("onecycle", 0.1, 200)
    settings = dict(optimizer=name, weight_decay=0.01 * (name == "adamw"))
    config = make_config("gru", "mnist", clip_norm=0.0, **settings)
    ours = make_optimizer(config, schedule)
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


def test_every_name_in_config_is_known():
    for optimizer in OPTIMIZERS:
        for schedule in SCHEDULES:
            config = make_config("gru", "mnist", optimizer=optimizer)
            make_optimizer(config, make_schedule(schedule, 0.1, 10)).init(KERNEL)
