import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mnist_jax import augment, metrics, train_step
from mnist_jax.models import make_model

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (8, 28, 28, 1), np.uint8)
LABELS = np.arange(8, dtype=np.int32)


def make_batch(seed=3, step=0, first=0, repeats=1):
    positions = first + np.arange(8 * repeats)
    return train_step.Batch(
        np.concatenate([IMAGES] * repeats),
        np.concatenate([LABELS] * repeats),
        train_step.image_keys(np.uint32(seed), jnp.int32(step), positions),
    )


def make(model, optimizer, **settings):
    state = train_step.init_state(model, optimizer, 3, IMAGES.shape[1:])
    step = train_step.make_train_step(model, optimizer, **settings)
    # Nearly all of the time is compilation, of which no optimization spares much.
    return state, jax.jit(step, compiler_options={"xla_backend_optimization_level": 0})


def test_linear_step_by_hand():
    state, step = make(make_model("linear", 10), optax.sgd(0.5))
    kernel = np.asarray(state.params["Dense_0"]["kernel"], np.float64)
    x = IMAGES.reshape(8, -1) / 255.0
    logits = x @ kernel.T
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    one_hot = np.eye(10)[LABELS]
    loss = -np.log(probabilities[np.arange(8), LABELS]).mean()

    state, measured = step(state, make_batch())
    assert state.step == 1
    assert set(measured) == {"loss", "accuracy"}
    np.testing.assert_allclose(measured["loss"], loss, rtol=1e-5)
    correct = (logits.argmax(-1) == LABELS).mean()
    np.testing.assert_allclose(measured["accuracy"], correct, rtol=1e-6)
    np.testing.assert_allclose(
        state.params["Dense_0"]["kernel"],
        kernel - 0.5 * (probabilities - one_hot).T @ x / 8,
        atol=1e-5,
    )
    np.testing.assert_allclose(
        state.params["Dense_0"]["bias"],
        -0.5 * (probabilities - one_hot).mean(0),
        atol=1e-5,
    )


def test_initial_state_depends_on_the_seed_alone():
    model, optimizer = make_model("mlp", 10, hidden_sizes=(8,)), optax.adam(1e-3)
    one = train_step.init_state(model, optimizer, 1, (28, 28, 1))
    two, again = train_step.init_states(model, optimizer, [2, 1], (28, 28, 1))
    jax.tree.map(np.testing.assert_array_equal, one, again)
    kernel = lambda state: state.params["Dense_0"]["kernel"]  # noqa: E731
    assert not np.array_equal(kernel(one), kernel(two))


def test_a_batch_s_keys_are_a_function_of_seed_step_and_position():
    image_keys = jax.jit(train_step.image_keys)

    def keys(seed, step, first=0):
        positions = first + np.arange(4)
        return jax.random.key_data(image_keys(np.uint32(seed), step, positions))

    found = keys(3, 5)
    assert len(np.unique(found, axis=0)) == 4
    np.testing.assert_array_equal(found[2:], keys(3, 5, first=2)[:2])
    # Seeds have 32 bits, all of which count.
    for others in (keys(3, 6), keys(4, 5), keys(2**31 + 3, 5), keys(3, 5, first=4)):
        assert not np.isin(found, others).any()


@pytest.mark.parametrize("augmentation, dropout", [("shift", 0.0), ("none", 0.5)])
def test_augmentation_and_dropout_are_drawn_from_the_keys(augmentation, dropout):
    model = make_model("mlp", 10, hidden_sizes=(8,), dropout=dropout)
    state, step = make(
        model, optax.sgd(0.1), augmentation=augment.AUGMENTATIONS[augmentation]
    )
    loss = lambda **counters: step(state, make_batch(**counters))[1]["loss"]  # noqa: E731
    assert loss() == loss()
    others = [loss(seed=4), loss(step=1), loss(first=8)]
    assert len({float(loss()), *map(float, others)}) == 4


def test_average_sees_gradients_and_metrics():
    seen = []

    def average(tree):
        seen.append(tree)
        return tree

    model, optimizer = make_model("linear", 10), optax.sgd(0.1)
    state = train_step.init_state(model, optimizer, 0, (28, 28, 1))
    step = train_step.make_train_step(model, optimizer, average=average)
    jax.eval_shape(step, state, make_batch())
    [(grads, _, measured)] = seen
    assert jax.tree.structure(grads) == jax.tree.structure(state.params)
    assert set(measured) == {"loss", "accuracy"}


def test_gradients_accumulated_over_microbatches_are_those_of_the_batch():
    batch = make_batch(repeats=3)
    model = make_model("mlp", 10, hidden_sizes=(8,), dropout=0.5)
    make_parts = lambda size: make(  # noqa: E731
        model,
        optax.sgd(1.0),
        augmentation=augment.AUGMENTATIONS["shift"],
        microbatch_size=size,
    )
    state, whole = make_parts(None)
    expected = whole(state, batch)
    # Of 24 images; parts of 1 are refused, and the batch is taken whole.
    for size in (5, 1):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
            expected,
            make_parts(size)[1](state, batch),
        )


def test_a_step_metric_is_one_line_of_the_registry(monkeypatch):
    monkeypatch.setitem(
        metrics.STEP_METRICS, "ones", lambda logits, labels: (labels == 1).mean()
    )
    state, step = make(make_model("linear", 10), optax.sgd(0.1))
    _, measured = step(state, make_batch())
    assert measured["ones"] == 1 / 8
    assert train_step.init_history(5)["ones"].shape == (5,)


def test_a_batch_is_learned():
    model = make_model("mlp", 10, hidden_sizes=(16,), dropout=0.0)
    state, step = make(model, optax.adam(1e-2))
    for i in range(60):
        state, measured = step(state, make_batch(step=i))
    assert measured["loss"] < 0.05 and measured["accuracy"] == 1


def test_eval_step_scales_images_and_drops_nothing():
    model = make_model("mlp", 10, hidden_sizes=(8,), dropout=0.9)
    params = train_step.init_state(model, optax.sgd(0.1), 0, (28, 28, 1)).params
    logits = train_step.make_eval_step(model)(params, IMAGES)
    expected = model.apply({"params": params}, IMAGES / np.float32(255))
    np.testing.assert_allclose(logits, expected, atol=1e-6)
    scaled = train_step.to_float(jnp.uint8([0, 51, 255]))
    assert scaled.tolist() == pytest.approx([0, 0.2, 1])
