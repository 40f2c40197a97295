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

from mnist_jax import predict
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
