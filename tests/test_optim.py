import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import threadpoolctl
from runs_of_launch import assert_same_run, train_until

from mnist_jax.config import make_config
from mnist_jax.optim import OPTIMIZERS, SCHEDULES, make_optimizer, make_schedule
from mnist_jax.settings import ConfigError
from mnist_jax.training import train_and_evaluate
from mnist_jax.training_setup import prepare


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
        ("soap", (-0.1, -0.1)),
        # The mean square starts at a tenth of the squared gradient.
        ("rmsprop", (-0.1 / 0.1**0.5, -0.1 / 0.1**0.5)),
    ],
)
def test_first_update_by_hand(optimizer, expected):
    got = update(KERNEL, GRADS, optimizer)
    np.testing.assert_allclose(got["kernel"], [[expected[0]]], rtol=1e-5)
    np.testing.assert_allclose(got["bias"], [expected[1]], rtol=1e-5)


@pytest.mark.parametrize(
    "optimizer, grads, expected",
    [
        # The second gradient joins 0.9 times the first.
        ("sgd", (3, 3), (-0.3, -0.57)),
        # Mean squares 0.9, and 0.9 * 0.9 + 0.1 * 16.
        ("rmsprop", (3, 4), (-0.3 / 0.9**0.5, -0.4 / 2.41**0.5)),
        # The mean squares 1e-9 and 1.9e-9 are small beside eps, 1e-7, under the root.
        ("rmsprop", (1e-4, 1e-4), (-1e-5 / 1.01e-7**0.5, -1e-5 / 1.019e-7**0.5)),
    ],
)
def test_two_updates_by_hand(optimizer, grads, expected):
    rule = make_optimizer(optimizer, optax.constant_schedule(0.1))
    state = rule.init(jnp.float32(2))
    for grad, step in zip(grads, expected, strict=True):
        got, state = rule.update(jnp.float32(grad), state)
        np.testing.assert_allclose(got, step, rtol=1e-5)


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
    for name in ("adamw", "soap"):
        decoupled = update(KERNEL, GRADS, name, weight_decay=0.5)
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


def test_soap_is_adam_along_eigenvectors():
    """Three bases by NumPy, of parameters whose gradients depend on each other."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(6, 6))
    optimizer = make_optimizer("soap", optax.constant_schedule(0.1))
    params = {"a": jnp.zeros((2, 2)), "b": jnp.zeros(2)}
    state, step = optimizer.init(params), jax.jit(optimizer.update)
    mu, nu, moments, basis = np.zeros(6), np.zeros(6), np.zeros((6, 6)), np.eye(6)
    for count in range(1, 131):
        grad = mixing @ rng.normal(size=6)
        grads = {"a": jnp.float32(grad[:4].reshape(2, 2)), "b": jnp.float32(grad[4:])}
        updates, state = step(grads, state, params)
        mu = 0.9 * mu + 0.1 * grad
        moments = 0.99 * moments + 0.01 * np.outer(grad, grad)
        if count in (50, 100):
            basis = np.linalg.eigh(moments)[1]
        nu = 0.99 * nu + 0.01 * (basis.T @ grad) ** 2
        along = basis.T @ mu / (1 - 0.9**count) / np.sqrt(nu / (1 - 0.99**count))
        got = np.concatenate([updates["a"].ravel(), updates["b"]])
        np.testing.assert_allclose(got, -0.1 * basis @ along, atol=2e-4)


def test_soap_needs_few_steps_where_parameters_depend_on_each_other():
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.normal(size=(20, 20)))
    hessian = jnp.float32(turn * np.logspace(-3, 0, 20) @ turn.T)
    start = jnp.float32(rng.normal(size=20))

    def loss_after(name):
        optimizer = make_optimizer(name, make_schedule("cosine", 0.1, 300))

        @jax.jit
        def step(x, state, noise):
            # As of a batch: the gradient's noise is that of the curvature.
            updates, state = optimizer.update(hessian @ (x + 0.1 * noise), state, x)
            return x + updates, state

        x, state = start, optimizer.init(start)
        for noise in rng.normal(size=(300, 20)).astype(np.float32):
            x, state = step(x, state, noise)
        return x @ hessian @ x

    assert loss_after("soap") < 0.5 * loss_after("adam")


def test_soap_of_a_large_model_is_told():
    with pytest.raises(ConfigError, match="=soap: the model has 2,049 parameters, and"):
        update({"kernel": jnp.zeros(2049)}, None, "soap")


def test_soap_leaves_lapack_one_thread():
    """So that its bits are those of any number of cores, and busy ones do no harm."""
    make_optimizer("soap", optax.constant_schedule(0.1)).init(KERNEL)
    jnp.linalg.eigh(jnp.eye(3)).eigenvalues.block_until_ready()
    pools = [x for x in threadpoolctl.threadpool_info() if x["user_api"] == "blas"]
    assert any("scipy" in pool["filepath"] for pool in pools)
    assert {pool["num_threads"] for pool in pools} == {1}


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


def make_soap(**settings):
    return make_config(
        "tiny", "digits", optimizer="soap", learning_rate=2e-2, epochs=3, **settings
    )


@pytest.mark.slow
def test_a_stopped_run_with_soap_goes_on_to_the_same_bits(tmp_path):
    """With a basis from before the stop, and one after it."""
    config = make_soap()
    train_and_evaluate(config, tmp_path / "whole")
    train_until(
        lambda losses, done: 50 < done + len(losses) < 100, config, tmp_path / "stopped"
    )
    train_and_evaluate(config, tmp_path / "stopped")
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.slow
def test_devices_agree_with_soap():
    """Before the first basis; where it has no gradients, rounding decides."""
    params = []
    for num_devices in (1, 2):
        trainer = prepare(make_soap(num_devices=num_devices)).trainer
        trainer.run(0, 8)
        params.append(trainer.fetch_state().params)
    for ours, theirs in zip(*map(jax.tree.leaves, params), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
