import numpy as np
import pytest

from mnist_jax import datasets, predict, records, train
from mnist_jax.config import make_config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("predict")
    config = make_config("linear", "digits", epochs=3, num_devices=1)
    train.train_and_evaluate(config, path)
    return path


def test_probabilities_equal_those_recorded(workdir):
    test_images = datasets.load("digits").test_images
    recorded = records.read_predictions(workdir).probabilities
    np.testing.assert_allclose(
        predict.predict(workdir, test_images), recorded, atol=1e-6
    )


def test_evaluation_equals_the_recorded_result(workdir):
    scores, result = predict.evaluate(workdir), records.read_result(workdir)
    assert scores["dataset"] == "digits"
    assert scores["test"]["accuracy"] == result["test_accuracy"]
    assert scores["test"]["loss"] == pytest.approx(result["test_loss"], rel=1e-6)
    last = records.read_metrics(workdir)[-1]
    assert scores["validation"]["accuracy"] == last["validation_accuracy"]
    counts = [scores[part]["num_images"] for part in ("validation", "test")]
    assert counts == [140, 397]


def test_evaluation_writes_nothing(workdir):
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    predict.evaluate(workdir)
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before


def test_config_is_read_back(workdir):
    config = predict.load_config(workdir)
    assert config.model == "linear" and config.epochs == 3


def test_no_run_is_told(tmp_path):
    with pytest.raises(records.RecordsError, match="holds no run"):
        predict.predict(tmp_path, np.zeros((1, 28, 28, 1), np.uint8))


def test_settings_of_another_version_are_told(tmp_path):
    records.write_config(tmp_path, {"model": "mlp", "dataset": "digits", "magic": 1})
    with pytest.raises(records.RecordsError, match="config.json: unknown.* magic"):
        predict.load_config(tmp_path)
