"""Whole runs in this process, on the embedded digits."""

import dataclasses
import signal

import numpy as np
import pytest
from runs_of_launch import assert_same_bits, saved, without_times

from mnist_jax import models, records, train
from mnist_jax.config import ConfigError, make_config
from mnist_jax.train import loop
from mnist_jax.train.run import count_steps, epoch_order, make_programs, prepare


def make_mlp(**settings):
    """A small run with all that is random switched on."""
    settings = {
        "epochs": 3,
        "hidden_sizes": (16,),
        "dropout": 0.2,
        "augment": "affine",
        "schedule": "onecycle",
        "num_devices": 2,
        **settings,
    }
    return make_config("mlp", "digits", **settings)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(config, workdir, result) of an undisturbed run."""
    config, workdir = make_mlp(), tmp_path_factory.mktemp("finished")
    return config, workdir, train.train_and_evaluate(config, workdir)


def test_result_and_metrics_hold_what_they_promise(finished):
    config, workdir, result = finished
    assert records.read_result(workdir) == result
    promised = {
        "test_accuracy", "test_loss", "per_class_accuracy", "confusion_matrix",
        "num_params", "epochs", "compile_seconds", "train_seconds", "dataset",
        "versions", "device",
    }  # fmt: skip
    assert promised <= set(result)
    assert result["dataset"] == "digits" and result["epochs"] == 3
    assert result["num_params"] == 784 * 16 + 16 + 16 * 10 + 10
    matrix = np.array(result["confusion_matrix"])
    assert matrix.sum() == result["num_test_images"] == 397, "all test images count"
    assert result["test_accuracy"] == pytest.approx(matrix.trace() / matrix.sum())
    assert result["compile_seconds"] > 0 and result["train_seconds"] > 0

    epochs = records.read_metrics(workdir)
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3]
    assert epochs[-1]["train_loss"] < epochs[0]["train_loss"]
    total = sum(epoch["seconds"] for epoch in epochs)
    assert total == pytest.approx(result["train_seconds"])
    assert records.read_config(workdir) == config.to_dict()


def test_predictions_belong_to_the_result(finished):
    _, workdir, result = finished
    predictions = records.read_predictions(workdir)
    right = predictions.probabilities.argmax(1) == predictions.labels
    assert right.mean() == result["test_accuracy"]
    np.testing.assert_allclose(predictions.probabilities.sum(1), 1, atol=1e-5)
    chosen = predictions.probabilities[np.arange(397), predictions.labels]
    loss = -np.log(chosen.astype(np.float64)).mean()
    assert loss == pytest.approx(result["test_loss"], rel=1e-4)


def test_same_seed_twice_gives_the_same_bits(finished, tmp_path):
    config, workdir, _ = finished
    train.train_and_evaluate(config, tmp_path)
    assert without_times(tmp_path) == without_times(workdir)
    assert_same_bits(saved(tmp_path), saved(workdir))


def test_another_seed_gives_another_run(finished, tmp_path):
    _, workdir, _ = finished
    train.train_and_evaluate(make_mlp(seed=1), tmp_path)
    assert without_times(tmp_path)[0] != without_times(workdir)[0]


@pytest.mark.parametrize("stop_after", [1, 3, 4])
def test_an_interrupted_run_goes_on_to_the_same_bits(
    finished, tmp_path, monkeypatch, stop_after
):
    config, workdir, _ = finished
    # Chunks of 15 of the 39 steps of an epoch: most stops fall inside an epoch.
    monkeypatch.setattr(loop, "_FIRST_CHUNK", 15)
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)
    checks = []

    def check_and_stop(*arguments):
        checks.append(arguments)
        if len(checks) == stop_after:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_check_finite", check_and_stop)
        with pytest.raises(train.Interrupted, match="SIGTERM after step .*saved in"):
            train.train_and_evaluate(config, tmp_path)
    assert records.read_result(tmp_path) is None
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 1.0)
    train.train_and_evaluate(config, tmp_path)
    assert without_times(tmp_path) == without_times(workdir)
    assert_same_bits(saved(tmp_path), saved(workdir))


def test_signal_handlers_are_put_back(finished):
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_complete_run_is_not_repeated(finished):
    config, workdir, result = finished
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    assert train.train_and_evaluate(config, workdir) == result
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before


def test_another_run_in_the_workdir_is_refused(finished):
    _, workdir, _ = finished
    expected = "--seed=0 there, 5 here.*--overwrite"
    with pytest.raises(records.RecordsError, match=expected):
        train.train_and_evaluate(make_mlp(seed=5), workdir)


def test_overwrite_replaces_the_run(tmp_path):
    first = make_mlp(epochs=1)
    train.train_and_evaluate(first, tmp_path)
    second = make_mlp(epochs=2, seed=5)
    result = train.train_and_evaluate(second, tmp_path, overwrite=True)
    assert result["epochs"] == 2 and len(records.read_metrics(tmp_path)) == 2
    assert records.read_config(tmp_path) == second.to_dict()


def test_without_validation_part_its_metrics_are_null(tmp_path):
    config = make_mlp(epochs=1, validation_fraction=0.0)
    result = train.train_and_evaluate(config, tmp_path)
    assert result["num_train_images"] == 1400
    [epoch] = records.read_metrics(tmp_path)
    assert epoch["validation_loss"] is None and epoch["validation_accuracy"] is None


def test_a_loss_that_is_not_finite_stops_with_step_and_cause(tmp_path):
    config = make_mlp(learning_rate=1e30, optimizer="sgd", schedule="constant")
    with pytest.raises(train.TrainingError) as caught:
        train.train_and_evaluate(config, tmp_path)
    message = str(caught.value)
    assert "at step 2:" in message or "at step 3:" in message
    assert "--learning_rate (now 1e+30)" in message and "\n" not in message
    assert records.read_result(tmp_path) is None


def test_a_batch_larger_than_the_data_is_refused_before_anything_is_written(tmp_path):
    workdir = tmp_path / "run"
    with pytest.raises(ConfigError, match="--batch_size=2000.*1260"):
        train.train_and_evaluate(make_mlp(batch_size=2000), workdir)
    assert not workdir.exists()


@pytest.mark.parametrize(
    "model, num_devices", [("linear", 1), ("mlp", 1), ("cnn", 4), ("gru", 3)]
)
def test_devices_follow_the_work_in_a_batch(model, num_devices):
    # A gru of 62 thousand parameters needs 13 images per device.
    config = make_config(model, "digits", batch_size=48)
    module = models.build_model(config)
    count = lambda config: len(make_programs(config, module, 0.1).devices)  # noqa: E731
    assert count(config) == num_devices
    assert count(dataclasses.replace(config, num_devices=2)) == 2


@pytest.mark.parametrize("content", [None, "", '{"epoch": 1, "train_l', "[]\n{}\n"])
def test_lost_metrics_are_written_again_from_the_checkpoint(
    finished, tmp_path, monkeypatch, content
):
    config, workdir, _ = finished

    def stop_in_second_epoch(losses, done, config):
        if done >= 39:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_check_finite", stop_in_second_epoch)
        with pytest.raises(train.Interrupted):
            train.train_and_evaluate(config, tmp_path)
    if content is None:
        (tmp_path / records.METRICS).unlink()
    else:
        (tmp_path / records.METRICS).write_text(content)
    train.train_and_evaluate(config, tmp_path)
    assert without_times(tmp_path) == without_times(workdir)


def test_steps_that_cannot_be_counted_are_refused():
    config = make_config("mlp", "mnist", epochs=100_000, batch_size=1)
    with pytest.raises(ConfigError, match="--epochs=100000: .* give 39768 or fewer"):
        count_steps(config, 54_000)
    with pytest.raises(ConfigError, match="--validation_fraction=0.1: .* lower it"):
        count_steps(config, 0)


def test_epoch_order_is_a_function_of_seed_and_epoch():
    rows = np.arange(100, 200)
    order = epoch_order(rows, 32, seed=1, epoch=4)
    assert order.shape == (3, 32) and order.dtype == np.int32
    assert len(np.unique(order)) == 96 and np.isin(order, rows).all()
    np.testing.assert_array_equal(order, epoch_order(rows, 32, seed=1, epoch=4))
    assert not np.array_equal(order, epoch_order(rows, 32, seed=1, epoch=5))
    assert not np.array_equal(order, epoch_order(rows, 32, seed=2, epoch=4))


def test_validation_images_are_never_trained_on():
    run = prepare(make_mlp())
    assert len(run.validation_rows) == 140 and len(run.train_rows) == 1260
    assert not np.intersect1d(run.train_rows, run.validation_rows).size
    order = epoch_order(run.train_rows, 32, 0, 0)
    assert not np.intersect1d(order, run.validation_rows).size
