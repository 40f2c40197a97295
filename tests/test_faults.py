"""What a run survives: kills, damage, a full disk, a second process; by real ones."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from runs_of_launch import (
    LAUNCH,
    assert_same_bits,
    assert_same_run,
    launch,
    start,
    wait_until,
)

from mnist_jax import predict, records, train
from mnist_jax.checkpoints import CheckpointError, Checkpoints
from mnist_jax.config import make_config
from mnist_jax.train import loop
from mnist_jax.train.run import prepare

# Long enough to be killed often, with all that is random switched on; on the digits an
# epoch is one chunk at most, so that each is followed by a checkpoint.
COMMON = (
    "--dataset=digits", "--augment=affine", "--schedule=onecycle",
    "--checkpoint_every=1",
)  # fmt: skip
RUNS = {
    "mlp": ("--model=mlp", "--hidden_sizes=32", "--dropout=0.2", "--epochs=25"),
    "cnn": ("--model=cnn", "--dropout=0.25", "--epochs=6"),
    "gru": ("--model=gru", "--units=16", "--dropout=0.2", "--epochs=15"),
}


def checkpoint_steps(workdir: Path) -> list[int]:
    folder = workdir / records.CHECKPOINTS
    names = os.listdir(folder) if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal())


def unfinished(workdir: Path) -> list[Path]:
    return list((workdir / records.CHECKPOINTS).glob("*.orbax-checkpoint-tmp*"))


def num_epochs(workdir: Path) -> int:
    path = workdir / records.METRICS
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def kill(command: tuple[str, ...], workdir: Path, moment: str, rng: random.Random):
    """Starts the run and kills it at a moment after it made some way."""
    before = checkpoint_steps(workdir)[-1:]
    process = start(*command, f"--workdir={workdir}", cwd=workdir.parent)
    moved_on = lambda: checkpoint_steps(workdir)[-1:] > before  # noqa: E731
    reached = wait_until(moved_on, process)
    assert reached, process.communicate()
    epochs = num_epochs(workdir)
    if moment == "in a checkpoint":
        wait_until(lambda: unfinished(workdir), process)
    elif moment == "after metrics":  # and before the checkpoint with that epoch
        wait_until(lambda: num_epochs(workdir) > epochs, process)
    else:
        time.sleep(rng.uniform(0, 0.5))
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was over before"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """model -> workdir of the run that nobody disturbed."""
    done = {}

    def run(model):
        if model not in done:
            folder = tmp_path_factory.mktemp(model)
            launch(*RUNS[model], *COMMON, f"--workdir={folder / 'run'}", cwd=folder)
            done[model] = folder / "run"
        return done[model]

    return run


@pytest.mark.parametrize(
    "model, moment",
    [("mlp", "at random"), ("cnn", "after metrics"), ("gru", "in a checkpoint")],
)
def test_a_killed_run_goes_on_to_the_same_bits(undisturbed, tmp_path, model, moment):
    command, workdir = (*RUNS[model], *COMMON), tmp_path / "run"
    kill(command, workdir, moment, random.Random(0))
    assert not (workdir / records.RESULT).exists()
    launch(*command, f"--workdir={workdir}", cwd=tmp_path)
    assert not unfinished(workdir)
    assert_same_run(workdir, undisturbed(model))


@pytest.mark.slow
@pytest.mark.parametrize("model", RUNS)
def test_a_run_killed_twenty_times_goes_on_to_the_same_bits(tmp_path, model):
    rng = random.Random(model)
    epochs = ("--epochs=150",) if model == "mlp" else ("--epochs=60",)
    command = (*RUNS[model], *epochs, *COMMON)
    workdir, other = tmp_path / "run", tmp_path / "undisturbed"
    moments = ["at random"] * 8 + ["after metrics"] * 4 + ["in a checkpoint"] * 8
    rng.shuffle(moments)
    half_written = 0
    for moment in moments:
        kill(command, workdir, moment, rng)
        half_written += bool(unfinished(workdir))
    assert half_written >= 4, "kills fell into checkpoints"
    launch(*command, f"--workdir={workdir}", cwd=tmp_path)
    launch(*command, f"--workdir={other}", cwd=tmp_path)
    assert_same_run(workdir, other)


def make_mlp():
    return make_config(
        "mlp", "digits", epochs=3, hidden_sizes=(16,), dropout=0.2, augment="affine",
        checkpoint_every=1, num_devices=2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """(workdir of a run stopped in its last epoch, workdir of the whole run)."""
    folder = tmp_path_factory.mktemp("faults")
    whole, half = folder / "whole", folder / "half"
    train.train_and_evaluate(make_mlp(), whole)

    def stop_in_last_epoch(losses, done, config):
        if done >= 2 * 39:
            signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_FIRST_CHUNK", 20)
        patch.setattr(loop, "CHUNK_SECONDS", 0.0)
        patch.setattr(loop, "next_chunk", lambda *arguments: 20)
        patch.setattr(loop, "_check_finite", stop_in_last_epoch)
        with pytest.raises(train.Interrupted):
            train.train_and_evaluate(make_mlp(), half)
    assert len(checkpoint_steps(half)) == 2
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
    run = prepare(make_mlp())
    history = loop.step.Metrics(*np.zeros((2, run.num_steps), np.float32))
    template = loop.training_tree(loop.Snapshot(run.state, history, loop.Clock()))

    def restore():
        with Checkpoints(half, read_only=True) as checkpoints:
            params, training, epochs = checkpoints.restore(run.state.params, template)
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


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(stopped, half, damage):
    last = checkpoint_steps(half)[-1]
    files = (half / records.CHECKPOINTS / str(last) / "params").rglob("*")
    largest = max((p for p in files if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(damage(largest.read_bytes()))
    train.train_and_evaluate(make_mlp(), half)
    assert_same_run(half, stopped[1])
    assert (half / records.DAMAGED / str(last)).is_dir(), "nothing is thrown away"


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def remove_record(checkpoint: Path) -> None:
    """As the layout was before there were records."""
    shutil.rmtree(checkpoint / "record")


def other_model(checkpoint: Path) -> None:
    config = make_config("linear", "digits", epochs=1)
    train.train_and_evaluate(config, checkpoint.parent / "x")
    [found] = (checkpoint.parent / "x" / records.CHECKPOINTS).iterdir()
    shutil.rmtree(checkpoint)
    found.rename(checkpoint)
    shutil.rmtree(checkpoint.parent / "x")


def other_folder(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()
    (checkpoint / "notes.txt").write_text("mine")


@pytest.mark.parametrize("fault", [remove_record, other_model, other_folder])
def test_no_sound_checkpoint_is_one_line_and_nothing_is_lost(half, fault):
    for step in checkpoint_steps(half):
        fault(half / records.CHECKPOINTS / str(step))
    before = contents(half)
    with pytest.raises(CheckpointError) as caught:
        train.train_and_evaluate(make_mlp(), half)
    message = str(caught.value)
    assert "--overwrite" in message and "\n" not in message and str(half) in message
    assert {k: v for k, v in contents(half).items() if k.name != ".lock"} == {
        k: v for k, v in before.items() if k.name != ".lock"
    }
    assert not (half / records.DAMAGED).exists()


def test_a_reader_changes_nothing_of_a_damaged_run(half):
    last = half / records.CHECKPOINTS / str(checkpoint_steps(half)[-1])
    shutil.rmtree(last / "params")
    before = contents(half)
    assert predict.evaluate(half)["test"]["num_images"] == 397
    assert contents(half) == before


def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(tmp_path):
    command = (*RUNS["mlp"], *COMMON, "--epochs=2000", "--workdir=run")
    first = start(*command, cwd=tmp_path)
    try:
        assert wait_until(lambda: checkpoint_steps(tmp_path / "run"), first)
        before = set(os.listdir(tmp_path / "run"))
        for more in ((), ("--overwrite",)):
            _, errors = launch(*command, *more, cwd=tmp_path, code=1)
            [line] = [x for x in errors.splitlines() if x.startswith("error: ")]
            assert f"run is in use by process {first.pid}" in line
            assert "another --workdir" in line
            assert set(os.listdir(tmp_path / "run")) >= before
        assert first.poll() is None
    finally:
        first.kill()
        first.communicate()
    third = start(*command, cwd=tmp_path)
    step = checkpoint_steps(tmp_path / "run")[-1]
    assert wait_until(lambda: checkpoint_steps(tmp_path / "run")[-1] > step, third)
    third.kill()
    third.communicate()


MAY_MOUNT = (
    shutil.which("unshare")
    and subprocess.run(
        ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /tmp"],
        capture_output=True,
    ).returncode
    == 0
)
needs_mounts = pytest.mark.skipif(not MAY_MOUNT, reason="may not mount a tmpfs")
BIG = ("--model=mlp", "--dataset=digits", "--epochs=4", "--checkpoint_every=1")


def launch_on_mount(script: str, cwd: Path) -> subprocess.CompletedProcess:
    """A shell script with $LAUNCH, whose mounts nobody else sees."""
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        cwd=cwd,
        env={**os.environ, "XLA_FLAGS": "", "LAUNCH": f"{sys.executable} {LAUNCH}"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@needs_mounts
@pytest.mark.parametrize("megabytes, some_saved", [(10, True), (3, False)])
def test_a_full_disk_is_told_and_costs_no_checkpoint(tmp_path, megabytes, some_saved):
    # A checkpoint of these 535,818 parameters and Adam's state takes 6 MB.
    command = " ".join(BIG)
    done = launch_on_mount(
        f"mkdir small && mount -t tmpfs -o size={megabytes}m none small && "
        f"$LAUNCH {command} --workdir=small/run; echo status $?; "
        "cp -a small/run kept",
        tmp_path,
    )
    assert "status 1" in done.stdout, done.stdout + done.stderr
    [line] = [x for x in done.stderr.splitlines() if x.startswith("error: ")]
    assert "cannot be written" in line and "make room" in line
    assert "Traceback" not in done.stderr
    kept = tmp_path / "kept"
    assert bool(checkpoint_steps(kept)) == some_saved and not unfinished(kept)
    launch(*BIG, "--workdir=kept", cwd=tmp_path)
    launch(*BIG, "--workdir=undisturbed", cwd=tmp_path)
    assert_same_run(kept, tmp_path / "undisturbed")


@needs_mounts
def test_a_read_only_workdir_is_told(tmp_path):
    command = " ".join(BIG)
    done = launch_on_mount(
        "mkdir fixed && mount -t tmpfs -o ro none fixed && "
        f"$LAUNCH {command} --workdir=fixed/run; echo status $?",
        tmp_path,
    )
    assert "status 1" in done.stdout, done.stdout + done.stderr
    [line] = [x for x in done.stderr.splitlines() if x.startswith("error: ")]
    assert "--workdir=fixed/run cannot be written (Read-only file system)" in line
    assert "Traceback" not in done.stderr


@needs_mounts
def test_a_run_that_became_read_only_can_be_evaluated(tmp_path):
    launch(*RUNS["mlp"], *COMMON, "--epochs=1", "--workdir=run", cwd=tmp_path)
    done = launch_on_mount(
        "mount --bind run run && mount -o remount,ro,bind run && "
        "$LAUNCH --mode=evaluate --workdir=run",
        tmp_path,
    )
    assert "test accuracy" in done.stdout, done.stderr
