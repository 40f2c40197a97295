import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mnist_jax import models, step

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (8, 28, 28, 1), np.uint8)
LABELS = np.arange(8, dtype=np.int32)
BATCH = step.Batch(IMAGES, LABELS, np.arange(8, dtype=np.int32))


def make(model, optimizer, **settings):
    state = step.init_state(model, optimizer, seed=3)
    train_step = jax.jit(step.make_train_step(model, optimizer, **settings))
    return state, lambda state, batch, seed=3: train_step(state, batch, seed)


def test_linear_step_by_hand():
    model, optimizer = models.Linear(), optax.sgd(0.5)
    state, train_step = make(model, optimizer)
    kernel = np.asarray(state.params["Dense_0"]["kernel"], np.float64)
    x = IMAGES.reshape(8, -1) / 255.0
    logits = x @ kernel.T
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    one_hot = np.eye(10)[LABELS]
    loss = -np.log(shares[np.arange(8), LABELS]).mean()

    state, metrics = train_step(state, BATCH)
    assert state.step == 1
    np.testing.assert_allclose(metrics.loss, loss, rtol=1e-5)
    right = (logits.argmax(-1) == LABELS).mean()
    np.testing.assert_allclose(metrics.accuracy, right, rtol=1e-6)
    np.testing.assert_allclose(
        state.params["Dense_0"]["kernel"],
        kernel - 0.5 * (shares - one_hot).T @ x / 8,
        atol=1e-5,
    )
    np.testing.assert_allclose(
        state.params["Dense_0"]["bias"],
        -0.5 * (shares - one_hot).mean(0),
        atol=1e-5,
    )


def test_initial_state_depends_on_the_seed_alone():
    model, optimizer = models.MLP(hidden_sizes=(8,)), optax.adam(1e-3)
    a, b, c = (step.init_state(model, optimizer, seed) for seed in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    kernel = lambda state: state.params["Dense_0"]["kernel"]  # noqa: E731
    assert not np.array_equal(kernel(a), kernel(c))


@pytest.mark.parametrize("augmentation, dropout", [("affine", 0.0), ("none", 0.5)])
def test_randomness_is_a_function_of_seed_step_and_position(augmentation, dropout):
    model, optimizer = models.MLP(hidden_sizes=(8,), dropout=dropout), optax.sgd(0.0)
    state, train_step = make(model, optimizer, augmentation=augmentation)
    first, again = train_step(state, BATCH)[1], train_step(state, BATCH)[1]
    assert first.loss == again.loss
    # A rate of 0 leaves the params: only the step tells the two losses apart.
    later, _ = train_step(state, BATCH)
    assert train_step(later, BATCH)[1].loss != first.loss
    assert train_step(state, BATCH, seed=4)[1].loss != first.loss
    moved = BATCH._replace(positions=BATCH.positions + 8)
    assert train_step(state, moved)[1].loss != first.loss


def test_average_sees_gradients_and_metrics():
    seen = []

    def average(tree):
        seen.append(tree)
        return tree

    model, optimizer = models.Linear(), optax.sgd(0.1)
    state = step.init_state(model, optimizer, 0)
    step.make_train_step(model, optimizer, average=average)(state, BATCH, 0)
    [(grads, metrics)] = seen
    assert jax.tree.structure(grads) == jax.tree.structure(state.params)
    assert isinstance(metrics, step.Metrics)


@pytest.mark.parametrize("most_at_once", [5, 4, 3, 1])
def test_a_batch_in_parts_is_the_same_step(most_at_once):
    # Of 24 images; parts of 1 are refused, and the batch is taken whole.
    batch = jax.tree.map(lambda x: np.concatenate([x] * 3), BATCH)
    batch = batch._replace(positions=np.arange(24))
    model, optimizer = models.GRU(units=8, dropout=0.5), optax.sgd(1.0)
    state, whole = make(model, optimizer, augmentation="shift")
    _, in_parts = make(
        model, optimizer, augmentation="shift", most_at_once=most_at_once
    )
    expected, got = whole(state, batch), in_parts(state, batch)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), expected, got
    )


def test_a_batch_of_one_label_is_learned():
    model, optimizer = models.MLP(hidden_sizes=(16,), dropout=0.0), optax.adam(1e-2)
    state, train_step = make(model, optimizer)
    for _ in range(60):
        state, metrics = train_step(state, BATCH)
    assert metrics.loss < 0.05 and metrics.accuracy == 1


def test_eval_step_scales_images_and_drops_nothing():
    model = models.MLP(hidden_sizes=(8,), dropout=0.9)
    params = step.init_state(model, optax.sgd(0.1), 0).params
    logits = step.make_eval_step(model)(params, IMAGES)
    expected = model.apply({"params": params}, IMAGES / np.float32(255))
    np.testing.assert_allclose(logits, expected, atol=1e-6)
    assert step.to_float(jnp.uint8([0, 51, 255])).tolist() == pytest.approx([0, 0.2, 1])
