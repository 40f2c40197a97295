"""What a run makes of damaged checkpoints, and of an overwrite that was killed."""

import shutil
from pathlib import Path

import pytest
from runs_of_launch import (
    assert_same_bits,
    assert_same_run,
    checkpoint_steps,
    make_mlp,
    templates,
    train_until,
)

from mnist_jax import plots, predict
from mnist_jax.storage import records
from mnist_jax.storage import workdir as workdir_lib
from mnist_jax.storage.checkpoints import CheckpointError, Checkpoints
from mnist_jax.trainer import Trainer
from mnist_jax.training import train_and_evaluate


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """(workdir of a run stopped in its last epoch, workdir of the whole run)."""
    folder = tmp_path_factory.mktemp("faults")
    whole, half = folder / "whole", folder / "half"
    train_and_evaluate(make_mlp(), whole)

    with pytest.MonkeyPatch.context() as patch:
        twenty = property(lambda self: 20, lambda self, steps: None)
        patch.setattr(Trainer, "chunk_steps", twenty, raising=False)
        config = make_mlp(checkpoint_every=0)
        train_until(lambda losses, done: done >= 2 * 39, config, half)
    assert checkpoint_steps(half) == [78, 98]
    return half, whole


@pytest.fixture
def half(stopped, tmp_path):
    """A copy of the stopped run, to be damaged."""
    return shutil.copytree(stopped[0], tmp_path / "half")


def truncate(content):
    return content[: len(content) // 2]


def empty(content):
    return b""


def flip(content):
    """One bit in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


def foreign(content):
    return b"\x80\x04 none of ours " * 9


DAMAGES = [truncate, empty, flip, foreign]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_to_any_file_never_gives_other_numbers(half, damage):
    steps = checkpoint_steps(half)
    identity, wanted = make_mlp().identity(), templates(make_mlp())

    def restore():
        with Checkpoints(half, identity, read_only=True) as checkpoints:
            params, training, epochs = checkpoints.restore(*wanted)
        return {int(training["step"]): (params, training, epochs)}

    sound = restore()
    last = half / records.CHECKPOINTS / str(steps[-1])
    shutil.move(last, half / "aside")
    sound |= restore()
    shutil.move(half / "aside", last)
    assert sorted(sound) == steps
    went_back = 0
    for path in sorted(path for path in last.rglob("*") if path.is_file()):
        content = path.read_bytes()
        path.write_bytes(damage(content) if content else b"x")
        [(step, found)] = restore().items()
        assert_same_bits(found, sound[step])
        went_back += step == steps[0]
        path.write_bytes(content)
    assert went_back >= 3, "params, training and record are checked"


@pytest.mark.parametrize("damage", [truncate, flip], ids=lambda damage: damage.__name__)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(stopped, half, damage):
    last = checkpoint_steps(half)[-1]
    files = (half / records.CHECKPOINTS / str(last) / "params").rglob("*")
    largest = max((p for p in files if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(damage(largest.read_bytes()))
    train_and_evaluate(make_mlp(), half)
    assert_same_run(half, stopped[1])
    assert (half / records.DAMAGED / str(last)).is_dir(), "nothing is thrown away"


def contents(folder: Path) -> dict[Path, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files if path.name != records.LOCK}


def without_records(workdir: Path) -> None:
    """As the layout was before there were records."""
    for checkpoint in (workdir / records.CHECKPOINTS).iterdir():
        shutil.rmtree(checkpoint / "record")


def of_another_seed(workdir: Path) -> None:
    other = workdir.with_name("other")
    train_and_evaluate(make_mlp(seed=1), other)
    [*_, last] = checkpoint_steps(other)
    for step in checkpoint_steps(workdir):
        checkpoint = workdir / records.CHECKPOINTS / str(step)
        shutil.rmtree(checkpoint)
        shutil.copytree(other / records.CHECKPOINTS / str(last), checkpoint)


def of_none(workdir: Path) -> None:
    for checkpoint in (workdir / records.CHECKPOINTS).iterdir():
        shutil.rmtree(checkpoint)
        checkpoint.mkdir()
        (checkpoint / "notes.txt").write_text("mine")


@pytest.mark.parametrize(
    "make_checkpoints", [without_records, of_another_seed, of_none]
)
def test_no_sound_checkpoint_is_one_line_and_nothing_is_lost(half, make_checkpoints):
    make_checkpoints(half)
    before = contents(half)
    with pytest.raises(CheckpointError) as caught:
        train_and_evaluate(make_mlp(checkpoint_every=0), half)
    message = str(caught.value)
    assert "--overwrite" in message and "\n" not in message and str(half) in message
    assert contents(half) == before
    assert not (half / records.DAMAGED).exists()


def short_labels(workdir: Path) -> None:
    predictions = records.read_predictions(workdir)
    labels = predictions.labels[:5]
    records.write_predictions(workdir, predictions._replace(labels=labels))


def lines_cut_off(workdir: Path) -> None:
    records.write_metrics(workdir, records.read_metrics(workdir)[:-1])


def damage_in_place(name, damage):
    def change(workdir: Path) -> None:
        path = workdir / name
        path.write_bytes(damage(path.read_bytes()))

    return change


def remove(*names):
    def change(workdir: Path) -> None:
        for name in names:
            path = workdir / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


@pytest.mark.parametrize(
    "changes, told",
    [
        (
            [remove(records.METRICS, records.PREDICTIONS)],
            ["metrics.jsonl is missing", "predictions.npz is missing"],
        ),
        (
            [
                damage_in_place(records.METRICS, truncate),
                damage_in_place(records.PREDICTIONS, truncate),
            ],
            ["metrics.jsonl is damaged", "predictions.npz is damaged"],
        ),
        (
            [lines_cut_off, short_labels],
            ["2 of the 3 epochs of result.json", "labels is int32 [5]"],
        ),
    ],
    ids=["lost", "half", "values"],
)
def test_a_complete_run_makes_again_what_it_lost(
    stopped, tmp_path, caplog, changes, told
):
    whole = stopped[1]
    workdir = shutil.copytree(whole, tmp_path / "whole")
    for change in changes:
        change(workdir)
    with pytest.raises(records.RecordsError, match="repeat the training command"):
        plots.draw_all(workdir)
    result = train_and_evaluate(make_mlp(), workdir)
    assert result == records.read_result(whole)
    assert_same_run(workdir, whole)
    for name in (records.CONFIG, records.METRICS, records.RESULT):
        assert (workdir / name).read_bytes() == (whole / name).read_bytes()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2, "and none on another score"
    for line, text in zip(lines, told, strict=True):
        assert text in line and "making it again" in line and "\n" not in line
    assert len(plots.draw_all(workdir)) == 5


def test_a_lost_file_and_a_damaged_last_checkpoint_end_in_the_same_run(
    stopped, half, caplog
):
    train_and_evaluate(make_mlp(checkpoint_every=0), half)
    last = checkpoint_steps(half)[-1]
    remove(records.PREDICTIONS, f"checkpoints/{last}/params")(half)
    result = (half / records.RESULT).read_bytes()
    train_and_evaluate(make_mlp(), half)
    assert (half / records.RESULT).read_bytes() == result
    assert_same_run(half, stopped[1])
    assert "scoring the test set again" not in caplog.text


def test_a_score_that_is_another_one_is_told_and_not_recorded(
    stopped, tmp_path, caplog
):
    workdir = shutil.copytree(stopped[1], tmp_path / "whole")
    result = records.read_result(workdir)
    accuracy = result["test_accuracy"]
    result["test_accuracy"] = accuracy - 0.01
    records.write_result(workdir, result)
    remove(records.PREDICTIONS)(workdir)
    assert train_and_evaluate(make_mlp(), workdir) == result
    assert records.read_result(workdir) == result
    [_, line] = [record.getMessage() for record in caplog.records]
    expected = f"test_accuracy is {accuracy:g} now, {accuracy - 0.01:g} there"
    assert "result.json is kept" in line and expected in line


def test_a_lost_file_without_a_checkpoint_is_one_line(stopped, tmp_path):
    workdir = shutil.copytree(stopped[1], tmp_path / "whole")
    remove(records.PREDICTIONS, records.CHECKPOINTS)(workdir)
    before = contents(workdir)
    expected = "predictions.npz is missing; there is no checkpoint.*--overwrite"
    with pytest.raises(records.RecordsError, match=expected) as caught:
        train_and_evaluate(make_mlp(), workdir)
    assert "\n" not in str(caught.value)
    assert contents(workdir) == before


@pytest.mark.parametrize(
    "changed, told",
    [
        ({"test_accuracy": "high"}, "test_accuracy is 'high'"),
        ({"epochs": 4}, "epochs is 4"),
        ({"dataset": "mnist"}, "dataset is 'mnist'"),
    ],
)
def test_a_damaged_result_is_refused_by_the_training_command(
    stopped, tmp_path, changed, told
):
    workdir = shutil.copytree(stopped[1], tmp_path / "whole")
    records.write_result(workdir, records.read_result(workdir) | changed)
    before = contents(workdir)
    expected = f"result.json is damaged .{told}.*: restore .* --overwrite"
    with pytest.raises(records.RecordsError, match=expected):
        train_and_evaluate(make_mlp(), workdir)
    assert contents(workdir) == before


def test_a_reader_changes_nothing_of_a_damaged_run(half):
    last = half / records.CHECKPOINTS / str(checkpoint_steps(half)[-1])
    shutil.rmtree(last / "params")
    before = contents(half)
    found = predict.evaluate(half)
    assert found.scores["validation"]["num_images"] == 140
    # The checkpoint before, in an epoch that is not finished.
    assert found.epoch == 2 and not found.is_complete and "test" not in found.scores
    assert contents(half) == before


def test_overwriting_killed_half_way_mixes_no_runs(half, monkeypatch):
    for name in (records.FIGURES, records.DAMAGED):
        (half / name).mkdir()
    remove = shutil.rmtree
    for stop_at in (records.FIGURES, records.DAMAGED, records.CHECKPOINTS):

        def die_at(path, stop_at=stop_at, **settings):
            if path.name == stop_at:
                raise KeyboardInterrupt
            remove(path, **settings)

        with monkeypatch.context() as patch:
            patch.setattr(workdir_lib.shutil, "rmtree", die_at)
            with pytest.raises(KeyboardInterrupt):
                train_and_evaluate(make_mlp(), half, overwrite=True)
        assert (half / stop_at).exists()
        with pytest.raises(records.RecordsError, match="remove them with --overwrite"):
            train_and_evaluate(make_mlp(), half)
    train_and_evaluate(make_mlp(), half, overwrite=True)
    assert not (half / records.FIGURES).exists()
    assert not (half / records.DAMAGED).exists()
    assert len(records.read_metrics(half)) == 3
