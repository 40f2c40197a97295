import sys

import pytest
from tensorboardX.proto import event_pb2
from test_records import EPOCH

from mnist_jax.settings import ConfigError
from mnist_jax.storage import records
from mnist_jax.tensorboard import EventFiles


def epoch(number, **values):
    return {**dict.fromkeys(EPOCH, 0.5), "epoch": number, **values}


def read(folder):
    """{(tag, epoch): value} of all event files, which are TFRecords of events."""
    found = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:
            length = int.from_bytes(content[:8], "little")
            event = event_pb2.Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            for value in event.summary.value:
                key = value.tag, event.step
                assert key not in found, "no epoch is there twice"
                found[key] = value.simple_value
    return found


def test_epochs_become_scalars(tmp_path):
    files = EventFiles(tmp_path)
    files.write([epoch(1, train_loss=2.0, validation_loss=None)])
    files.write([epoch(1), epoch(2, train_loss=1.0, validation_loss=1.5)])
    files.close()
    found = read(tmp_path / "tensorboard")
    assert found["loss/train", 1] == 2.0 and found["loss/train", 2] == 1.0
    assert ("loss/validation", 1) not in found
    assert found["loss/validation", 2] == 1.5
    assert found["learning_rate", 2] == 0.5
    assert {tag for tag, _ in found} == {
        "loss/train", "loss/validation", "accuracy/train", "accuracy/validation",
        "learning_rate", "seconds", "images_per_second",
    }  # fmt: skip


def test_another_start_writes_all_epochs_anew(tmp_path):
    for last in (2, 3):
        files = EventFiles(tmp_path)
        files.write([epoch(i) for i in range(1, last)])
        files.write([epoch(i) for i in range(1, last + 1)])
        files.close()
    assert {step for _, step in read(tmp_path / "tensorboard")} == {1, 2, 3}


def test_a_run_writes_each_of_its_epochs(tmp_path, run_launch):
    run_launch(
        "--model=linear", "--dataset=digits", "--epochs=3", "--workdir=run",
        "--tensorboard", cwd=tmp_path,
    )  # fmt: skip
    found = read(tmp_path / "run/tensorboard")
    epochs = records.read_metrics(tmp_path / "run")
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3]
    for epoch in epochs:
        for tag, key in (
            ("loss/train", "train_loss"),
            ("accuracy/validation", "validation_accuracy"),
            ("learning_rate", "learning_rate"),
        ):
            assert found[tag, epoch["epoch"]] == pytest.approx(epoch[key], rel=1e-6)


def test_without_the_extra_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorboardX", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install -e '.\\[tensorboard\\]'"):
        EventFiles(tmp_path)
    assert not list(tmp_path.iterdir())
