import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_jax import explain, models
from mnist_jax.train_step import make_eval_step, to_float


def _images(number):
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (number, 28, 28, 1), np.uint8)


def _init(name, **settings):
    model = models.make_model(name, 10, **settings)
    images = jnp.zeros((1, 28, 28, 1))
    params = jax.jit(model.init)(jax.random.key(3), images)["params"]
    return model, params


@pytest.mark.parametrize(
    "name", ["gru", *(pytest.param(x, marks=pytest.mark.slow) for x in ("rnn", "lstm"))]
)
def test_a_reading_is_what_the_model_predicts_of_the_rows_so_far(name):
    model, params = _init(name, units=8, layers=2)
    images = _images(3)
    reading = np.asarray(jax.jit(explain.make_reading_step(model))(params, images))
    assert reading.shape == (3, 28, 10)
    predict = jax.jit(make_eval_step(model))
    for row in (0, 9, 27):
        logits = predict(params, images[:, : row + 1])
        np.testing.assert_allclose(
            reading[:, row], jax.nn.softmax(logits), atol=1e-6, err_msg=f"row {row}"
        )


@pytest.mark.slow
def test_directions_have_read_as_many_rows_each():
    model, params = _init("gru", units=8, bidirectional=True)
    images = _images(2)
    reading = np.asarray(jax.jit(explain.make_reading_step(model))(params, images))
    predict = jax.jit(make_eval_step(model))
    np.testing.assert_allclose(
        reading[:, -1], jax.nn.softmax(predict(params, images)), atol=1e-6
    )
    # With what lies between left out, ten rows from each end are a whole image.
    joined = np.concatenate([images[:, :10], images[:, -10:]], axis=1)
    ends = [images[:, :10], images[:, -10:]]
    swapped = np.concatenate(ends[::-1], axis=1)
    after_ten = np.asarray(jax.jit(explain.make_reading_step(model))(params, joined))[
        :, 9
    ]
    np.testing.assert_allclose(reading[:, 9], after_ten, atol=1e-6)
    other = np.asarray(jax.jit(explain.make_reading_step(model))(params, swapped))[:, 9]
    assert np.abs(reading[:, 9] - other).max() > 1e-3


def test_models_that_read_steps_are_the_recurrent_ones():
    found = [
        name
        for name in models.MODELS
        if explain.reads_steps(models.make_model(name, 10))
    ]
    assert found == ["rnn", "lstm", "gru", "lru", "mingru", "minlstm"]


def test_saliency_of_a_linear_model_is_that_of_the_formula():
    model, params = _init("linear")
    images = _images(4)
    found = np.asarray(jax.jit(explain.make_saliency_step(model))(params, images))
    kernel = np.asarray(params["Dense_0"]["kernel"], np.float64)  # [10, 784]
    shares = np.asarray(jax.nn.softmax(make_eval_step(model)(params, images)))
    best = shares.argmax(-1)
    expected = np.abs(kernel[best] - shares @ kernel).reshape(4, 28, 28)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cnn", "gru"])
def test_saliency_is_the_slope_at_each_pixel(name):
    model, params = _init(name)
    image = _images(1)
    found = np.asarray(jax.jit(explain.make_saliency_step(model))(params, image))[0]
    floats = np.asarray(to_float(jnp.asarray(image)))

    @jax.jit
    def log_probs(images):
        return jax.nn.log_softmax(model.apply({"params": params}, images))

    best = int(log_probs(floats).argmax())
    places = [np.unravel_index(i, (28, 28)) for i in np.argsort(found.ravel())[-3:]]
    for y, x in places:
        step = np.zeros_like(floats)
        step[0, y, x] = 2e-3  # small, for ReLU has kinks
        above, below = log_probs(floats + step), log_probs(floats - step)
        slope = float(above[0, best] - below[0, best]) / 4e-3
        assert abs(slope) == pytest.approx(found[y, x], rel=0.05)
