import signal

import numpy as np
import pytest

from mnist_jax import data, predict, training
from mnist_jax.config import make_config
from mnist_jax.signals import Interrupted
from mnist_jax.storage import records
from mnist_jax.storage.stored_run import require_config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("predict")
    config = make_config("linear", "digits", epochs=3, num_devices=1)
    training.train_and_evaluate(config, path)
    return path


def test_probabilities_equal_those_recorded(workdir):
    test_images = data.load("digits").test_images
    recorded = records.read_predictions(workdir).probabilities
    np.testing.assert_allclose(
        predict.predict(workdir, test_images), recorded, atol=1e-6
    )


def test_evaluation_equals_the_recorded_result(workdir):
    found, result = predict.evaluate(workdir), records.read_result(workdir)
    assert (found.dataset, found.epoch, found.num_epochs) == ("digits", 3, 3)
    assert found.is_complete
    test, validation = found.scores["test"], found.scores["validation"]
    assert test["accuracy"] == result["test_accuracy"]
    assert test["loss"] == pytest.approx(result["test_loss"], rel=1e-6)
    last = records.read_metrics(workdir)[-1]
    assert validation["accuracy"] == last["validation_accuracy"]
    assert (validation["num_images"], test["num_images"]) == (140, 397)


def test_the_test_set_of_an_unfinished_run_is_not_scored(tmp_path):
    config = make_config("linear", "digits", epochs=5, num_devices=1)

    def stop(epochs):
        if epochs:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted, match="the run is saved"):
        training.train_and_evaluate(config, tmp_path, on_epochs=stop)
    found = predict.evaluate(tmp_path)
    assert found.epoch == len(records.read_metrics(tmp_path)) < found.num_epochs == 5
    assert not found.is_complete
    assert [(part, x["num_images"]) for part, x in found.scores.items()] == [
        ("validation", 140)
    ]


def test_evaluation_writes_nothing(workdir):
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    predict.evaluate(workdir)
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before


def test_config_is_read_back(workdir):
    config = require_config(workdir).config
    assert config.model == "linear" and config.epochs == 3


def test_no_run_is_told(tmp_path):
    with pytest.raises(records.RecordsError, match="holds no run"):
        predict.predict(tmp_path, np.zeros((1, 28, 28, 1), np.uint8))


def test_settings_of_another_version_are_told(tmp_path):
    settings = {"model": "mlp", "dataset": "digits", "seed": 0, "magic": 1}
    records.write_config(tmp_path, settings, "ab12")
    with pytest.raises(records.RecordsError, match="config.json: unknown.*'magic'"):
        require_config(tmp_path)
