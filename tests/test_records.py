import errno
import json
import math

import numpy as np
import pytest

from mnist_jax.storage import atomic, records

EPOCH = {
    "epoch": 1,
    "train_loss": 0.123456789012345,
    "train_accuracy": 0.5,
    "validation_loss": None,
    "validation_accuracy": None,
    "learning_rate": 1e-3,
    "seconds": 2.0,
    "images_per_second": 100.0,
}
SECOND = {**EPOCH, "epoch": 2}
RESULT = {
    **dict.fromkeys(records.RESULT_KEYS, 2),
    "class_names": list("0123456789"),
    "test_accuracy": 1 / 3,
    "per_class_accuracy": [1.0, 0.0, 0.0, *[None] * 7],
    "confusion_matrix": [[1, *[0] * 9]] * 3 + [[0] * 10] * 7,
}
PREDICTIONS = records.Predictions(
    probabilities=np.full((3, 10), 0.1, np.float32),
    labels=np.arange(3, dtype=np.int32),
    shown=np.array([2, 0], np.int32),
    shown_images=np.zeros((2, 28, 28), np.uint8),
    sample_images=np.ones((4, 28, 28), np.uint8),
    sample_labels=np.arange(4, dtype=np.int32),
)


def test_what_is_written_is_read_back_exactly(tmp_path):
    settings = {"model": "gru", "dataset": "digits", "seed": 3}
    facts = records.Facts(("o", "ki"), (28, 28, 1), "cd34", ("Dense_1/bias",))
    records.write_config(tmp_path, settings, "ab12", facts)
    records.write_metrics(tmp_path, [EPOCH, SECOND])
    records.write_result(tmp_path, RESULT)
    assert records.read_config(tmp_path) == (settings, "ab12", facts)
    assert records.read_metrics(tmp_path) == [EPOCH, SECOND]
    assert records.read_result(tmp_path) == {"schema": records.SCHEMA, **RESULT}


def test_metrics_have_one_json_line_per_epoch(tmp_path):
    records.write_metrics(tmp_path, [EPOCH, SECOND])
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"schema": records.SCHEMA, **EPOCH}, {"schema": records.SCHEMA, **SECOND}
    ]  # fmt: skip


@pytest.mark.parametrize(
    "lines, told",
    [
        ([{**EPOCH, "epoch": 2}], "line 1 is that of epoch 2"),
        ([EPOCH, EPOCH], "line 2 is that of epoch 1"),
        ([{**EPOCH, "train_loss": "0.1"}], "line 1 has more than numbers"),
        ([{"epoch": 1}], "train_loss missing"),
        ([[1]], "no JSON object"),
    ],
)
def test_epochs_that_cannot_be_are_told(tmp_path, lines, told):
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(records.RecordsError, match=f"metrics.jsonl is damaged .{told}"):
        records.read_metrics(tmp_path)


@pytest.mark.parametrize(
    "changed, told",
    [
        ({"train_loss": float("nan")}, "line 2: train_loss is nan"),
        ({"train_loss": None}, "line 2: train_loss is null"),
        ({"train_loss": -0.1}, "line 2: train_loss is -0.1"),
        ({"train_loss": 1e300}, r"line 2: train_loss is 1e\+300"),
        ({"train_loss": 10**400}, "line 2: train_loss is 1000"),
        ({"train_loss": True}, "line 2 has more than numbers: train_loss is True"),
        ({"train_accuracy": 1.1}, "line 2: train_accuracy is 1.1, .* from 0 to 1"),
        ({"validation_loss": float("inf")}, "line 2: validation_loss is inf"),
        ({"validation_loss": 0.5}, "line 1: validation_loss is null"),
        ({"validation_own": 1e300}, r"line 2: validation_own is 1e\+300"),
    ],
)
def test_values_of_an_epoch_that_cannot_be_are_told(tmp_path, changed, told):
    records.write_metrics(tmp_path, [EPOCH, SECOND | changed])
    with pytest.raises(records.RecordsError, match=f"is damaged .{told}") as caught:
        records.read_metrics(tmp_path)
    assert "\n" not in str(caught.value)
    assert "repeat the training command" in str(caught.value)


def test_metrics_of_ones_own_may_be_of_any_kind_of_number(tmp_path):
    own = {"train_own": None, "validation_own": -7.5, "validation_others": math.inf}
    records.write_metrics(tmp_path, [EPOCH, SECOND | own])
    assert records.read_metrics(tmp_path) == [EPOCH, SECOND | own]
    records.write_metrics(tmp_path, [EPOCH | {"validation_own": math.nan}])
    assert math.isnan(records.read_metrics(tmp_path)[0]["validation_own"])


@pytest.mark.parametrize(
    "changed, told",
    [
        ({"test_accuracy": "high"}, "test_accuracy is 'high'"),
        ({"test_accuracy": None}, "test_accuracy is None"),
        ({"test_loss": float("nan")}, "test_loss is nan"),
        ({"test_loss": -1}, "test_loss is -1"),
        ({"train_seconds": "long"}, "train_seconds is 'long'"),
        ({"num_test_images": 1.5}, "num_test_images is 1.5"),
        ({"class_names": ["0", "1"]}, "confusion_matrix .* class_names has 2 names"),
        ({"class_names": [0] * 10}, "class_names is no list of texts"),
        ({"confusion_matrix": [[0] * 10] * 10}, "confusion_matrix counts no images"),
        ({"confusion_matrix": [[-1] * 10] * 10}, "confusion_matrix is not 10x10"),
        ({"per_class_accuracy": [2] * 10}, "per_class_accuracy is 2"),
    ],
)
def test_values_of_a_result_that_cannot_be_are_told(tmp_path, changed, told):
    records.write_result(tmp_path, RESULT | changed)
    with pytest.raises(records.RecordsError, match=f"json is damaged .{told}") as own:
        records.read_result(tmp_path)
    assert "\n" not in str(own.value)
    assert "restore the file" in str(own.value)


@pytest.mark.parametrize(
    "changed, told",
    [
        ({"labels": np.arange(2)}, r"labels is int64 \[2\]"),
        ({"labels": np.full(3, 10)}, "labels has values"),
        ({"labels": np.zeros(3)}, "labels is float64"),
        ({"labels": np.array([0, 0, 0])}, "probabilities and labels do not give"),
        ({"probabilities": np.full((3, 10), np.nan)}, "probabilities has values"),
        ({"probabilities": np.full((3, 9), 0.1)}, ".* of 3 images and 9 classes"),
        ({"shown": np.array([2, 3])}, "shown has values .* from 0 to 2"),
        ({"shown_images": np.zeros((1, 28, 28), np.uint8)}, "shown_images is uint8"),
        ({"sample_images": np.zeros((4, 28, 28))}, "sample_images is float64"),
        ({"sample_labels": np.arange(3)}, "sample_images is uint8 .* sample_labels"),
    ],
)
def test_predictions_that_cannot_be_are_told(tmp_path, changed, told):
    predictions = PREDICTIONS._replace(probabilities=np.eye(10, dtype=np.float32)[:3])
    matrix = np.diag([1] * 3 + [0] * 7).tolist()
    result = RESULT | {"confusion_matrix": matrix}
    records.write_predictions(tmp_path, predictions)
    assert records.read_predictions(tmp_path, result) is not None
    records.write_predictions(tmp_path, predictions._replace(**changed))
    with pytest.raises(records.RecordsError, match=f"npz is damaged .{told}") as own:
        records.read_predictions(tmp_path, result)
    assert "repeat the training command" in str(own.value)


def test_a_complete_run_has_all_epochs_and_predictions(tmp_path):
    with pytest.raises(records.RecordsError, match="predictions.npz is missing: "):
        records.read_predictions(tmp_path, RESULT)
    with pytest.raises(records.RecordsError, match="metrics.jsonl is missing: "):
        records.read_metrics(tmp_path, RESULT)
    records.write_metrics(tmp_path, [EPOCH])
    with pytest.raises(records.RecordsError, match="1 of the 2 epochs of"):
        records.read_metrics(tmp_path, RESULT)
    nulls = RESULT | {"num_validation_images": 5}
    records.write_metrics(tmp_path, [EPOCH, SECOND])
    with pytest.raises(records.RecordsError, match="line 1: validation_loss is null"):
        records.read_metrics(tmp_path, nulls)
    assert len(records.read_metrics(tmp_path, RESULT)) == 2


def test_predictions_round_trip(tmp_path):
    records.write_predictions(tmp_path, PREDICTIONS)
    got = records.read_predictions(tmp_path)
    for a, b in zip(got, PREDICTIONS, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


def test_an_empty_folder_holds_nothing(tmp_path):
    assert records.read_config(tmp_path) is None
    assert records.read_metrics(tmp_path) == []
    assert records.read_result(tmp_path) is None
    assert records.read_predictions(tmp_path) is None


@pytest.mark.parametrize(
    "name, read",
    [
        ("config.json", records.read_config),
        ("metrics.jsonl", records.read_metrics),
        ("result.json", records.read_result),
        ("predictions.npz", records.read_predictions),
    ],
)
@pytest.mark.parametrize("content", [b"{", b"\x00\xff\xfe", b"PK\x03\x04broken"])
def test_damage_is_told_in_one_line_with_the_file(tmp_path, name, read, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(records.RecordsError) as caught:
        read(tmp_path)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name, value, told",
    [
        ("data_sha256", 7, "data_sha256 is 7, expected a text"),
        ("init_from_sha256", [], "init_from_sha256 is .., expected a text"),
        ("class_names", "ab", "class_names is no list of texts"),
        ("new_params", [1], "new_params is no list of texts"),
        ("image_shape", [28, 28], "image_shape is .28, 28., expected three whole"),
        ("image_shape", [28, 28, True], "image_shape is"),
        ("image_shape", [28, 0, 1], "image_shape is"),
    ],
)
def test_a_fact_that_cannot_be_is_told_with_its_name(tmp_path, name, value, told):
    content = {"model": "mlp", "dataset": "digits", "seed": 0, name: value}
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(records.RecordsError, match=f"is damaged .{told}.*: restore"):
        records.read_config(tmp_path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    records.write_result(tmp_path, RESULT)

    def fail(*arguments):
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(atomic.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full") as caught:
        records.write_result(tmp_path, {})
    assert caught.value.filename == str(tmp_path / "result.json")
    assert records.read_result(tmp_path)["test_accuracy"] == 1 / 3
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
