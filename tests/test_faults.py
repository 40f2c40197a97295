"""What a run survives: kills, a second process, a full disk; by real ones."""

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
    SECONDS,
    assert_same_run,
    checkpoint_steps,
    error_line,
    launch,
    make_mlp,
    start,
    train_until,
    wait_until,
)

from mnist_jax.storage import records
from mnist_jax.storage import workdir as workdir_lib
from mnist_jax.storage.stored_run import require_config
from mnist_jax.training import train_and_evaluate

# Long enough to be killed often, with all that is random switched on; on the digits an
# epoch is a chunk or two, and a checkpoint is taken after each.
COMMON = (
    "--dataset=digits", "--augment=affine", "--schedule=onecycle",
    "--checkpoint_every=0",
)  # fmt: skip
# The devices that there are decide over how many threads a matmul is spread.
HERE = os.environ["XLA_FLAGS"]
RUNS = {
    "mlp": ("--model=mlp", "--hidden_sizes=32", "--dropout=0.2", "--epochs=25"),
    "cnn": ("--model=cnn", "--dropout=0.25", "--epochs=6"),
    "gru": ("--model=gru", "--units=16", "--dropout=0.2", "--epochs=15"),
}


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
        # One takes some hundredths of a second, and may be over just before.
        while wait_until(lambda: unfinished(workdir), process):
            process.send_signal(signal.SIGSTOP)
            if unfinished(workdir):
                break
            process.send_signal(signal.SIGCONT)
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "model, moment",
    [("mlp", "in a checkpoint"), ("cnn", "after metrics"), ("gru", "at random")],
)
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, model, moment):
    workdir, other = tmp_path / "run", tmp_path / "undisturbed"
    command = (*RUNS[model], *COMMON, "--num_devices=2")
    half_written = kill(command, workdir, moment, random.Random(model), XLA_FLAGS=HERE)
    assert half_written or moment != "in a checkpoint"
    assert not (workdir / records.RESULT).exists()
    config = require_config(workdir).config
    for folder in (workdir, other):
        train_and_evaluate(config, folder)
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


def changed(path: Path) -> tuple[int, int]:
    return path.stat().st_ino, path.stat().st_mtime_ns


def test_a_second_process_is_refused(tmp_path, run_launch):
    workdir = tmp_path / "run"
    command = (
        "--model=linear", "--dataset=digits", "--epochs=5000", "--checkpoint_every=0",
        "--workdir=run",
    )  # fmt: skip
    first = start(*command, cwd=tmp_path)
    try:
        assert wait_until(lambda: checkpoint_steps(workdir), first)
        config = changed(workdir / records.CONFIG)
        for more in ((), ("--overwrite",)):
            _, errors = run_launch(*command, *more, cwd=tmp_path, code=1)
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
    with workdir_lib.lock(workdir):
        pass


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
    "--model=mlp", "--dataset=digits", "--epochs=4", "--checkpoint_every=0",
    "--num_devices=1", "--augment=none", "--dropout=0",
)  # fmt: skip


def launch_on_mount(script: str, cwd: Path) -> subprocess.CompletedProcess:
    """A shell script with $LAUNCH, whose mounts nobody else sees."""
    return subprocess.run(
        [*UNSHARE, script],
        cwd=cwd,
        env={**os.environ, "LAUNCH": f"{sys.executable} {LAUNCH}"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


@needs_mounts
@pytest.mark.parametrize(
    "megabytes, some_saved",
    [pytest.param(10, True, marks=pytest.mark.slow), (3, False)],
)
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
    # Nor do orbax's own threads say more than that line.
    assert "rror" not in done.stderr.replace(line, ""), done.stderr
    kept = tmp_path / "kept"
    assert bool(checkpoint_steps(kept)) == some_saved and not unfinished(kept)
    if some_saved:
        config = require_config(kept).config
        for folder in (kept, tmp_path / "undisturbed"):
            train_and_evaluate(config, folder)
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
def test_a_run_that_became_read_only_can_be_evaluated(tmp_path):
    train_until(lambda losses, done: done >= 39, make_mlp(), tmp_path / "half")
    done = launch_on_mount(
        "mount --bind half half && mount -o remount,ro,bind half && "
        "$LAUNCH --mode=evaluate --workdir=half",
        tmp_path,
    )
    assert "validation accuracy" in done.stdout, done.stderr
    assert "unfinished: " in done.stdout
