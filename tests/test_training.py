"""Whole runs in this process, on scikit-learn's digits."""

import dataclasses

import numpy as np
import pytest
from runs_of_launch import (
    assert_same_bits,
    make_mlp,
    saved,
    without_times,
)

from mnist_jax import divergence, training_setup
from mnist_jax.batching import count_steps, epoch_order
from mnist_jax.config import ConfigError, make_config
from mnist_jax.optim import make_schedule
from mnist_jax.storage import records
from mnist_jax.training import train_and_evaluate
from mnist_jax.training_setup import prepare


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(config, workdir, result) of an undisturbed run."""
    config, workdir = make_mlp(), tmp_path_factory.mktemp("finished")
    return config, workdir, train_and_evaluate(config, workdir)


def test_result_and_metrics_hold_what_they_promise(finished):
    config, workdir, result = finished
    assert records.read_result(workdir) == {"schema": records.SCHEMA, **result}
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
    schedule = make_schedule("onecycle", config.learning_rate, 3 * 39)
    of_last_steps = [float(schedule(step)) for step in (38, 77, 116)]
    rates = [epoch["learning_rate"] for epoch in epochs]
    assert rates == pytest.approx(of_last_steps, rel=1e-3)
    total = sum(epoch["seconds"] for epoch in epochs)
    assert total == pytest.approx(result["train_seconds"])
    stored = records.read_config(workdir)
    assert stored.settings == config.to_dict()
    assert len(stored.data_sha256) == 64


def test_predictions_belong_to_the_result(finished):
    _, workdir, result = finished
    predictions = records.read_predictions(workdir)
    correct = predictions.probabilities.argmax(1) == predictions.labels
    assert correct.mean() == result["test_accuracy"]
    np.testing.assert_allclose(predictions.probabilities.sum(1), 1, atol=1e-5)
    of_labels = predictions.probabilities[np.arange(397), predictions.labels]
    loss = -np.log(of_labels.astype(np.float64)).mean()
    assert loss == pytest.approx(result["test_loss"], rel=1e-4)


def test_same_seed_twice_gives_the_same_bits(finished, tmp_path):
    config, workdir, _ = finished
    train_and_evaluate(config, tmp_path)
    assert without_times(tmp_path) == without_times(workdir)
    assert_same_bits(saved(tmp_path), saved(workdir))


def test_without_validation_part_its_metrics_are_null(tmp_path):
    config = make_config("linear", "digits", epochs=1, validation_fraction=0.0)
    result = train_and_evaluate(config, tmp_path)
    assert result["num_train_images"] == 1400
    [epoch] = records.read_metrics(tmp_path)
    assert epoch["validation_loss"] is None and epoch["validation_accuracy"] is None


def test_a_tiny_clip_norm_stands_still(tmp_path):
    losses = []
    for clip_norm in (0.0, 1e-6):
        config = make_config(
            "linear", "digits", epochs=1, optimizer="sgd", learning_rate=0.1,
            clip_norm=clip_norm,
        )  # fmt: skip
        train_and_evaluate(config, tmp_path / str(clip_norm))
        [epoch] = records.read_metrics(tmp_path / str(clip_norm))
        losses.append(epoch["validation_loss"])
    assert losses[0] < 0.7 * losses[1]


def test_a_loss_that_is_not_finite_stops_with_step_and_cause(tmp_path):
    config = make_config(
        "mlp", "digits", hidden_sizes=(16,), augment="none", schedule="constant",
        optimizer="sgd", learning_rate=1e30,
    )  # fmt: skip
    with pytest.raises(divergence.TrainingError) as caught:
        train_and_evaluate(config, tmp_path)
    message = str(caught.value)
    assert "at step 2:" in message or "at step 3:" in message
    assert "--learning_rate (now 1e+30)" in message and "\n" not in message
    assert records.read_result(tmp_path) is None


@pytest.mark.parametrize("epochs", [1, 2])
def test_parameters_that_an_epoch_s_last_step_makes_infinite_are_no_result(
    tmp_path, epochs
):
    # The first loss is finite, as it is that before the update.
    config = make_config(
        "linear", "digits", epochs=epochs, batch_size=1260, optimizer="adamw",
        learning_rate=1e38, weight_decay=1e38,
    )  # fmt: skip
    with pytest.raises(
        divergence.TrainingError, match="parameters .* not finite"
    ) as own:
        train_and_evaluate(config, tmp_path)
    assert "--learning_rate (now 1e+38)" in str(own.value)
    assert "\n" not in str(own.value)
    assert records.read_result(tmp_path) is None
    assert not records.read_metrics(tmp_path)


@pytest.mark.parametrize("fraction, split", [(0.1, "validation"), (0.0, "test")])
def test_scores_that_are_not_finite_are_no_result(tmp_path, fraction, split):
    # Parameters of 1e38 are finite, and their logits are not.
    config = make_config(
        "linear", "digits", epochs=1, batch_size=1260, optimizer="adam",
        schedule="constant", learning_rate=1e38, validation_fraction=fraction,
    )  # fmt: skip
    with pytest.raises(divergence.TrainingError, match=f"the {split} loss is "):
        train_and_evaluate(config, tmp_path)
    assert records.read_result(tmp_path) is None


@pytest.mark.parametrize(
    "settings, expected",
    [
        (dict(batch_size=2000), "--batch_size=2000.*1260"),
        (dict(batch_size=33), "--batch_size=33 does not divide.* multiple of 2"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(
    settings, expected, tmp_path
):
    workdir = tmp_path / "run"
    with pytest.raises(ConfigError, match=expected):
        train_and_evaluate(make_mlp(**settings), workdir)
    assert not workdir.exists()


@pytest.mark.parametrize(
    "model, num_devices", [("linear", 1), ("mlp", 1), ("cnn", 4), ("gru", 3)]
)
def test_devices_follow_the_work_in_a_batch(model, num_devices, monkeypatch):
    # A gru of 62 thousand parameters needs 13 images per device.
    config = make_config(model, "digits", batch_size=48)
    count = lambda config: len(prepare(config).trainer.devices)  # noqa: E731
    assert count(config) == num_devices
    if model == "mlp":
        assert count(dataclasses.replace(config, num_devices=2)) == 2
        monkeypatch.setattr(training_setup.devices_lib, "_is_cpu", lambda: False)
        assert count(config) == 4, "accelerators are all used"


def test_steps_that_cannot_be_counted_are_refused():
    config = make_config("mlp", "mnist", epochs=100_000, batch_size=1)
    with pytest.raises(ConfigError, match="--epochs=100000: .* give 39768 or fewer"):
        count_steps(config, 54_000)
    with pytest.raises(ConfigError, match="--validation_fraction=0.1: .* lower it"):
        count_steps(config, 0)


def test_epoch_order_is_a_function_of_seed_and_epoch():
    indices = np.arange(100, 200)
    order = epoch_order(indices, 32, seed=1, epoch=4)
    assert order.shape == (3, 32) and order.dtype == np.int32
    assert len(np.unique(order)) == 96 and np.isin(order, indices).all()
    np.testing.assert_array_equal(order, epoch_order(indices, 32, seed=1, epoch=4))
    assert not np.array_equal(order, epoch_order(indices, 32, seed=1, epoch=5))
    assert not np.array_equal(order, epoch_order(indices, 32, seed=2, epoch=4))


def test_validation_images_are_never_trained_on():
    setup = prepare(make_mlp())
    assert len(setup.validation_indices) == 140 and len(setup.train_indices) == 1260
    order = epoch_order(setup.train_indices, 32, 0, 0)
    for trained_on in (setup.train_indices, order):
        assert not np.intersect1d(trained_on, setup.validation_indices).size
