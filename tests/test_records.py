import json

import numpy as np
import pytest

from mnist_jax.storage import records

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
    records.write_config(tmp_path, settings, "ab12")
    records.write_metrics(tmp_path, [EPOCH, SECOND])
    records.write_result(tmp_path, RESULT)
    assert records.read_config(tmp_path) == (settings, "ab12")
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


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    records.write_result(tmp_path, RESULT)

    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(records.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        records.write_result(tmp_path, {})
    assert records.read_result(tmp_path)["test_accuracy"] == 1 / 3
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
