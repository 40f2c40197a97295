"""What a run survives: kills, damage, a full disk, a second process; by real ones."""

import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs_of_launch import (
    LAUNCH,
    assert_same_bits,
    assert_same_run,
    error_line,
    launch,
    start,
    templates,
    wait_until,
)

from mnist_jax import predict, records, run_folder, train
from mnist_jax.checkpoints import CheckpointError, Checkpoints
from mnist_jax.config import make_config
from mnist_jax.train import loop

# Long enough to be killed often, with all that is random switched on; on the digits an
# epoch is one chunk at most, so that each is followed by a checkpoint.
COMMON = (
    "--dataset=digits", "--augment=affine", "--schedule=onecycle",
    "--checkpoint_every=1",
)  # fmt: skip
# The devices that there are decide over how many threads a product is spread.
HERE = os.environ["XLA_FLAGS"]
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


def kill(
    command: tuple[str, ...],
    workdir: Path,
    moment: str,
    rng: random.Random,
    **environment: str,
) -> bool:
    """Starts the run and kills it at a moment after it made some way.

    Returns:
      Whether that was in the middle of a checkpoint.
    """
    before = checkpoint_steps(workdir)[-1:]
    process = start(
        *command, f"--workdir={workdir}", cwd=workdir.parent,
        PYTHONHASHSEED=str(rng.randrange(2**32)), **environment,
    )  # fmt: skip
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
    process.send_signal(signal.SIGSTOP)
    leftover = bool(unfinished(workdir))
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was over before"
    return leftover


@pytest.mark.parametrize(
    "model, moment",
    [("mlp", "at random"), ("cnn", "after metrics"), ("gru", "in a checkpoint")],
)
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, model, moment):
    workdir, other = tmp_path / "run", tmp_path / "undisturbed"
    command = (*RUNS[model], *COMMON, "--num_devices=2")
    # A checkpoint takes some hundredths of a second: one may be over just before.
    for attempt in range(5):
        rng = random.Random(attempt)
        in_checkpoint = kill(command, workdir, moment, rng, XLA_FLAGS=HERE)
        if in_checkpoint or (moment != "in a checkpoint" and attempt == 1):
            break
    else:
        pytest.fail("no kill fell into a checkpoint")
    assert not (workdir / records.RESULT).exists()
    config = predict.load_config(workdir)
    for folder in (workdir, other):
        train.train_and_evaluate(config, folder)
    assert not unfinished(workdir)
    assert_same_run(workdir, other)


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
        half_written += kill(command, workdir, moment, rng)
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
    wanted = templates(make_mlp())

    def restore():
        with Checkpoints(half, read_only=True) as checkpoints:
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
    put(make_config("linear", "digits", epochs=1), checkpoint)


def other_seed(checkpoint: Path) -> None:
    put(dataclasses.replace(make_mlp(), seed=1), checkpoint)


def put(config, checkpoint: Path) -> None:
    """The last checkpoint of another run in place of this one."""
    train.train_and_evaluate(config, checkpoint.parent / "x")
    folder = checkpoint.parent / "x" / records.CHECKPOINTS
    found = folder / str(checkpoint_steps(folder.parent)[-1])
    shutil.rmtree(checkpoint)
    found.rename(checkpoint)
    shutil.rmtree(checkpoint.parent / "x")


def other_folder(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()
    (checkpoint / "notes.txt").write_text("mine")


@pytest.mark.parametrize(
    "fault", [remove_record, other_model, other_seed, other_folder]
)
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


def changed(path: Path) -> tuple[int, int]:
    return path.stat().st_ino, path.stat().st_mtime_ns


def test_a_second_process_is_refused(tmp_path):
    workdir = tmp_path / "run"
    command = (*RUNS["mlp"], *COMMON, "--epochs=2000", "--workdir=run")
    first = start(*command, cwd=tmp_path)
    try:
        assert wait_until(lambda: checkpoint_steps(workdir), first)
        config = changed(workdir / records.CONFIG)
        for more in ((), ("--overwrite",)):
            _, errors = launch(*command, *more, cwd=tmp_path, code=1)
            line = error_line(errors)
            assert f"run is in use by process {first.pid}" in line
            assert "another --workdir" in line
        assert changed(workdir / records.CONFIG) == config
        step = checkpoint_steps(workdir)[-1]
        assert wait_until(lambda: checkpoint_steps(workdir)[-1] > step, first)
    finally:
        first.kill()
        first.communicate()
    # What a killed owner leaves behind is no lock.
    with run_folder.lock(workdir):
        pass


@pytest.mark.parametrize("stop_at", ["figures", "damaged", "checkpoints"])
def test_overwriting_killed_half_way_mixes_no_runs(half, monkeypatch, stop_at):
    for name in ("figures", "damaged"):
        (half / name).mkdir()
    remove = shutil.rmtree

    def die_at(path):
        if path.name == stop_at:
            raise KeyboardInterrupt
        remove(path)

    with monkeypatch.context() as patch:
        patch.setattr(run_folder.shutil, "rmtree", die_at)
        with pytest.raises(KeyboardInterrupt):
            train.train_and_evaluate(make_mlp(), half, overwrite=True)
    with pytest.raises(records.RecordsError, match="remove them with --overwrite"):
        train.train_and_evaluate(make_mlp(), half)
    train.train_and_evaluate(make_mlp(), half, overwrite=True)
    assert not (half / "figures").exists() and not (half / "damaged").exists()


UNSHARE = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
MAY_MOUNT = (
    shutil.which("unshare")
    and subprocess.run(
        [*UNSHARE, "mount -t tmpfs none /tmp"], capture_output=True
    ).returncode
    == 0
)
needs_mounts = pytest.mark.skipif(not MAY_MOUNT, reason="may not mount a tmpfs")
BIG = (
    "--model=mlp", "--dataset=digits", "--epochs=4", "--checkpoint_every=1",
    "--num_devices=1",
)  # fmt: skip


def launch_on_mount(script: str, cwd: Path) -> subprocess.CompletedProcess:
    """A shell script with $LAUNCH, whose mounts nobody else sees."""
    return subprocess.run(
        [*UNSHARE, script],
        cwd=cwd,
        env={**os.environ, "LAUNCH": f"{sys.executable} {LAUNCH}"},
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
    line = error_line(done.stderr)
    assert "cannot be written" in line and "make room" in line
    kept = tmp_path / "kept"
    assert bool(checkpoint_steps(kept)) == some_saved and not unfinished(kept)
    if some_saved:
        config = predict.load_config(kept)
        for folder in (kept, tmp_path / "undisturbed"):
            train.train_and_evaluate(config, folder)
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
    line = error_line(done.stderr)
    assert "--workdir=fixed/run cannot be written (Read-only file system)" in line


@needs_mounts
def test_a_run_that_became_read_only_can_be_evaluated(half):
    done = launch_on_mount(
        "mount --bind half half && mount -o remount,ro,bind half && "
        "$LAUNCH --mode=evaluate --workdir=half",
        half.parent,
    )
    assert "test accuracy" in done.stdout, done.stderr
