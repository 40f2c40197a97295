"""Every preset reaches its accuracy; minutes each, so marked slow."""

import pytest

from mnist_jax import models
from mnist_jax.config import make_config
from mnist_jax.training import train_and_evaluate

# The least test accuracy, on scikit-learn's digits and on MNIST.
LEAST = {
    "linear": (0.95, 0.923),
    "mlp": (0.97, 0.983),
    "cnn": (0.97, 0.990),
    "lenet5": (0.97, 0.985),
    "resnet": (0.97, 0.990),
    "rnn": (0.97, 0.975),
    "lstm": (0.97, 0.988),
    "gru": (0.97, 0.988),
    "lru": (0.97, 0.985),
    "mingru": (0.97, 0.985),
    "minlstm": (0.97, 0.985),
    "fourway": (0.97, 0.988),
    "renet": (0.97, 0.988),
    "tiny": (0.90, 0.980),
}


def test_every_model_has_its_figures():
    assert LEAST.keys() == set(models.MODELS)


@pytest.mark.slow
@pytest.mark.parametrize("model", LEAST)
def test_preset_on_digits(model, tmp_path):
    config = make_config(model, "digits", num_devices=2)
    result = train_and_evaluate(config, tmp_path)
    assert result["test_accuracy"] >= LEAST[model][0]


@pytest.mark.slow
@pytest.mark.parametrize("model", LEAST)
def test_preset_on_mnist(model, tmp_path, mnist_raw_dir):
    config = make_config(model, "mnist", raw_dir=str(mnist_raw_dir), num_devices=2)
    result = train_and_evaluate(config, tmp_path)
    assert result["test_accuracy"] >= LEAST[model][1]


@pytest.mark.slow
def test_the_study_measures_the_process_once(tmp_path, run_study):
    arguments = ("--dataset=digits", "--models=linear", "--preset=quick", "--seeds=3")
    output, errors = run_study("accuracy.presets", *arguments, cwd=tmp_path)
    assert "wall time" in output and "epoch 20/20" in errors
    again, errors = run_study("accuracy.presets", *arguments, cwd=tmp_path)
    assert again == output[output.index("model  ") :] and errors == ""
    files = {path.name for path in (tmp_path / "runs" / "presets").iterdir()}
    names = {f"quick-digits.{ending}" for ending in ("json", "md", "png")}
    assert files == {"digits-quick-linear-3"} | names


def test_a_launch_that_fails_is_told(tmp_path, run_study):
    (tmp_path / "file").write_text("")
    arguments = ("--dataset=digits", "--models=linear", "--workdir=file/inside")
    _, errors = run_study("accuracy.presets", *arguments, cwd=tmp_path, code=1)
    *_, line = errors.splitlines()
    assert "Traceback" not in errors
    assert line.startswith("error: launch.py --model=linear --seed=0 ended with status")
