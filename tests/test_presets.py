"""Every preset reaches its accuracy; minutes each, so marked slow."""

import pytest

from mnist_jax import train
from mnist_jax.config import PRESETS, make_config

# The least test accuracy on MNIST; on the embedded digits it is 97%, linear 95%.
MNIST = {
    "linear": 0.923,
    "mlp": 0.983,
    "cnn": 0.990,
    "rnn": 0.975,
    "lstm": 0.988,
    "gru": 0.988,
}


@pytest.mark.slow
@pytest.mark.parametrize("model", PRESETS)
def test_preset_on_digits(model, tmp_path):
    config = make_config(model, "digits", num_devices=2)
    result = train.train_and_evaluate(config, tmp_path)
    assert result["test_accuracy"] >= (0.95 if model == "linear" else 0.97)


@pytest.mark.slow
@pytest.mark.parametrize("model", PRESETS)
def test_preset_on_mnist(model, tmp_path, mnist_raw_dir):
    config = make_config(model, "mnist", raw_dir=str(mnist_raw_dir), num_devices=2)
    result = train.train_and_evaluate(config, tmp_path)
    assert result["test_accuracy"] >= MNIST[model]
