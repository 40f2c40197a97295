"""Runs in this process that stop, go on, or meet another run in their workdir."""

import json
import signal

import pytest
from runs_of_launch import (
    assert_same_bits,
    make_mlp,
    saved,
    train_until,
    without_times,
)

from mnist_jax import metrics, trainer
from mnist_jax.storage import records
from mnist_jax.training import train_and_evaluate


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(config, workdir, result) of an undisturbed run."""
    config, workdir = make_mlp(), tmp_path_factory.mktemp("finished")
    return config, workdir, train_and_evaluate(config, workdir)


@pytest.mark.parametrize("stop_after", [1, 25, 40])
def test_an_interrupted_run_goes_on_to_the_same_bits(
    finished, tmp_path, monkeypatch, stop_after
):
    # A chunk of 15 of the 39 steps of an epoch, then of 1: the stops fall inside the
    # first epoch, on its end, and inside the second.
    config, workdir, _ = finished
    checks = []
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "_FIRST_CHUNK", 15)
        patch.setattr(trainer, "CHUNK_SECONDS", 0.0)

        def stops(losses, done):
            checks.append(done + len(losses))
            return len(checks) == stop_after

        train_until(stops, config, tmp_path)
    assert checks[-1] == 14 + stop_after
    train_and_evaluate(config, tmp_path)
    assert without_times(tmp_path) == without_times(workdir)
    assert_same_bits(saved(tmp_path), saved(workdir))


@pytest.mark.parametrize("content", [None, '{"epoch": 1, "train_l'])
def test_lost_metrics_are_written_again_from_the_checkpoint(
    finished, tmp_path, content
):
    config, workdir, _ = finished
    train_until(lambda losses, done: done >= 39, config, tmp_path)
    if content is None:
        (tmp_path / records.METRICS).unlink()
    else:
        (tmp_path / records.METRICS).write_text(content)
    train_and_evaluate(config, tmp_path)
    assert without_times(tmp_path) == without_times(workdir)


def test_a_metric_that_is_new_to_a_run_is_known_from_its_next_epoch_on(
    finished, tmp_path, monkeypatch
):
    config, workdir, result = finished
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "CHUNK_SECONDS", 0.0)
        train_until(lambda losses, done: done == 45, config, tmp_path)
    assert saved(tmp_path)[1]["step"] == 46, "inside the second epoch"
    monkeypatch.setitem(
        metrics.STEP_METRICS, "share_of_7", lambda logits, labels: (labels == 7).mean()
    )
    monkeypatch.setitem(
        metrics.EPOCH_METRICS, "wrong", lambda logits, labels: float(
            (logits.argmax(-1) != labels).sum()
        )
    )  # fmt: skip
    new = train_and_evaluate(config, tmp_path)
    first, second, third = records.read_metrics(tmp_path)
    assert "train_share_of_7" not in first and "validation_wrong" not in first
    assert second["train_share_of_7"] is None
    assert third["train_share_of_7"] == pytest.approx(0.1, abs=0.02)
    assert third["validation_wrong"] == pytest.approx(
        140 * (1 - third["validation_accuracy"])
    )
    assert new["test_wrong"] == pytest.approx(397 * (1 - new["test_accuracy"]))
    assert new["test_loss"] == pytest.approx(result["test_loss"], rel=1e-4)


def test_signal_handlers_are_put_back(tmp_path):
    def mine(number, frame):
        raise AssertionError("not while training")

    before = {n: signal.signal(n, mine) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        train_until(lambda losses, done: True, make_mlp(), tmp_path)
        assert all(signal.getsignal(number) is mine for number in before)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_complete_run_is_not_repeated(finished):
    config, workdir, _ = finished
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    assert train_and_evaluate(config, workdir) == records.read_result(workdir)
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before


def test_another_run_in_the_workdir_is_refused(finished):
    _, workdir, _ = finished
    expected = "--seed=0 there, 5 here.*--overwrite"
    with pytest.raises(records.RecordsError, match=expected):
        train_and_evaluate(make_mlp(seed=5), workdir)


def test_other_data_of_the_same_name_are_refused(tmp_path):
    config = make_mlp()
    train_until(lambda losses, done: True, config, tmp_path)
    stored = records.read_config(tmp_path)
    records.write_config(tmp_path, stored.settings, "f" * 64)
    before = (tmp_path / records.CONFIG).read_bytes()
    with pytest.raises(records.RecordsError, match="other data named digits") as caught:
        train_and_evaluate(config, tmp_path)
    assert "--overwrite" in str(caught.value) and "\n" not in str(caught.value)
    assert (tmp_path / records.CONFIG).read_bytes() == before


def test_an_unfinished_run_of_a_version_without_a_setting_goes_on(finished, tmp_path):
    config, workdir, _ = finished
    train_until(lambda losses, done: True, config, tmp_path)
    # As if --label_smoothing had come since, with what was done before as its default.
    path = tmp_path / records.CONFIG
    settings = json.loads(path.read_text())
    del settings["label_smoothing"]
    path.write_text(json.dumps(settings))
    train_and_evaluate(config, tmp_path)
    assert without_times(tmp_path) == without_times(workdir)


def test_overwrite_replaces_the_run_by_that_of_another_seed(finished, tmp_path):
    config, workdir, _ = finished
    train_until(lambda losses, done: True, config, tmp_path)
    other = make_mlp(seed=5)
    result = train_and_evaluate(other, tmp_path, overwrite=True)
    assert result["epochs"] == 3 and len(records.read_metrics(tmp_path)) == 3
    assert records.read_config(tmp_path).settings == other.to_dict()
    assert without_times(tmp_path)[0] != without_times(workdir)[0]
