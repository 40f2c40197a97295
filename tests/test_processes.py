"""One run by several real processes, which meet on 127.0.0.1."""

import dataclasses
import json
import signal
import socket

import numpy as np
import pytest
from forked_launch import XLA_FLAGS
from runs_of_launch import (
    ROOT,
    assert_same_run,
    checkpoint_steps,
    ends,
    error_line,
    free_address,
    start,
    wait_until,
)

from mnist_jax.storage import records
from mnist_jax.storage.stored_run import require_config
from mnist_jax.training import train_and_evaluate

DEVICES = f"{XLA_FLAGS} --xla_force_host_platform_device_count="
SMALL = (
    "--model=mlp", "--dataset=digits", "--hidden_sizes=32", "--dropout=0.2",
    "--augment=affine", "--schedule=onecycle", "--checkpoint_every=0",
    "--batch_size=128",
)  # fmt: skip


def start_all(number, *arguments, cwd, others=(), devices=(1, 1, 1, 1), last=()):
    """Starts so many processes, each in a folder of its own in `cwd`.

    Args:
      others: flags of all but the first.
      devices: how many each has.
      last: environment of the last one.
    """
    address = free_address()
    runs = []
    for i in range(number):
        folder = cwd / f"process-{i}"
        folder.mkdir(exist_ok=True)
        runs.append(
            start(
                *arguments,
                *(others if i else ()),
                f"--coordinator_address={address}",
                f"--num_processes={number}",
                f"--process_id={i}",
                cwd=folder,
                XLA_FLAGS=DEVICES + str(devices[i]),
                **dict(last if i == number - 1 else ()),
            )
        )
    return runs


def train_all(number, *arguments, cwd):
    for status, errors in ends(start_all(number, *arguments, cwd=cwd)):
        assert status == 0, errors


def assert_close_runs(workdir, other):
    ours, theirs = (records.read_metrics(path) for path in (workdir, other))
    for epoch, same in zip(ours, theirs, strict=True):
        assert epoch["train_loss"] == pytest.approx(same["train_loss"], abs=1e-5)
        assert epoch["validation_loss"] == pytest.approx(
            same["validation_loss"], abs=1e-5
        )
    np.testing.assert_allclose(
        records.read_predictions(workdir).probabilities,
        records.read_predictions(other).probabilities,
        atol=1e-5,
    )


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The workdir of a run that two processes trained undisturbed."""
    folder = tmp_path_factory.mktemp("two")
    train_all(2, *SMALL, "--epochs=20", f"--workdir={folder / 'run'}", cwd=folder)
    return folder / "run"


def train_alone(workdir, other):
    """The run of `workdir` by one process, this one, with as many devices."""
    devices = records.read_result(workdir)["device"]["num_devices"]
    config = require_config(workdir).config
    train_and_evaluate(dataclasses.replace(config, num_devices=devices), other)


def test_two_processes_of_which_one_writes_agree_with_one(tmp_path):
    two, one, folder = tmp_path / "two/run", tmp_path / "one", tmp_path / "two"
    folder.mkdir()
    train_all(2, *SMALL, "--epochs=3", f"--workdir={two}", cwd=folder)
    assert {path.name for path in folder.iterdir()} == {"process-0", "process-1", "run"}
    for i in range(2):
        assert not any((folder / f"process-{i}").iterdir())
    train_alone(two, one)
    assert_close_runs(two, one)
    devices = [records.read_result(path)["device"] for path in (two, one)]
    assert [d["num_processes"] for d in devices] == [2, 1]
    assert [d["num_devices"] for d in devices] == [2, 2]


@pytest.mark.slow
def test_each_process_sends_its_own_devices_their_images(two, tmp_path):
    command = (*SMALL, "--epochs=20", "--data_placement=host")
    train_all(2, *command, f"--workdir={tmp_path / 'run'}", cwd=tmp_path)
    assert_same_run(tmp_path / "run", two)


@pytest.mark.slow
def test_all_processes_read_the_teacher(tmp_path):
    teacher, together = tmp_path / "teacher", tmp_path / "run"
    train_all(1, *SMALL, "--epochs=1", f"--workdir={teacher}", cwd=tmp_path)
    command = (*SMALL, "--epochs=2", f"--teacher={teacher}")
    train_all(2, *command, f"--workdir={together}", cwd=tmp_path)
    train_alone(together, tmp_path / "one")
    assert_close_runs(together, tmp_path / "one")


@pytest.mark.slow
def test_all_stop_together_and_go_on_exactly(two, tmp_path):
    workdir = tmp_path / "run"
    command = (*SMALL, "--epochs=20", f"--workdir={workdir}")
    runs = start_all(2, *command, cwd=tmp_path)
    assert wait_until(lambda: checkpoint_steps(workdir), runs[1])
    runs[1].send_signal(signal.SIGTERM)
    for status, errors in ends(runs):
        assert status == 128 + signal.SIGTERM, errors
        assert "stopped by SIGTERM after step" in errors

    train_all(2, *command, cwd=tmp_path)
    assert_same_run(workdir, two)


@pytest.mark.slow
def test_one_ends_with_a_line_when_the_other_is_killed(two, tmp_path):
    workdir = tmp_path / "run"
    command = (*SMALL, "--epochs=20", f"--workdir={workdir}")
    runs = start_all(2, *command, cwd=tmp_path)
    assert wait_until(lambda: checkpoint_steps(workdir), runs[1])
    runs[1].kill()
    (status, errors), _ = ends(runs)
    assert status == 1
    line = error_line(errors)
    assert "another of the 2 processes ended" in line and "go on from" in line
    train_all(2, *command, cwd=tmp_path)
    assert_same_run(workdir, two)


@pytest.mark.slow
def test_the_others_end_when_the_first_is_killed(tmp_path):
    command = (*SMALL, "--epochs=400", f"--workdir={tmp_path / 'run'}")
    runs = start_all(2, *command, cwd=tmp_path)
    assert wait_until(lambda: checkpoint_steps(tmp_path / "run"), runs[0])
    runs[0].kill()
    _, (status, errors) = ends(runs)
    # The first carries what connects them: JAX may end the others by itself.
    assert status in (1, -signal.SIGABRT)
    assert "error: another of" in errors or "coordination service" in errors


@pytest.mark.slow
def test_four_processes_agree_with_one(tmp_path):
    train_all(4, *SMALL, "--epochs=6", f"--workdir={tmp_path / 'run'}", cwd=tmp_path)
    train_alone(tmp_path / "run", tmp_path / "one")
    assert_close_runs(tmp_path / "run", tmp_path / "one")


@pytest.mark.slow
def test_four_processes_end_when_one_is_killed_and_go_on_exactly(tmp_path):
    workdir, other = tmp_path / "run", tmp_path / "other"
    command = (*SMALL, "--epochs=40")
    runs = start_all(4, *command, f"--workdir={workdir}", cwd=tmp_path)
    assert wait_until(lambda: checkpoint_steps(workdir), runs[2])
    runs[2].kill()
    ended = ends(runs)
    for number in (0, 1, 3):
        status, errors = ended[number]
        assert status in (1, -signal.SIGABRT), errors
    error_line(ended[0][1])
    for folder in (workdir, other):
        train_all(4, *command, f"--workdir={folder}", cwd=tmp_path)
    assert_same_run(workdir, other)


def test_processes_that_would_train_differently_are_told(tmp_path):
    command = (*SMALL, "--epochs=2", f"--workdir={tmp_path / 'run'}")
    runs = start_all(2, *command, cwd=tmp_path, others=("--seed=5",))
    for status, errors in ends(runs):
        assert status == 1
        line = error_line(errors)
        assert "has other settings, data or versions than process" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0, 0.5, 1.5])
def test_a_signal_to_one_before_the_first_step_stops_all(tmp_path, seconds):
    """While the data are read, the programs are compiled."""
    moment = [signal.SIGINT, "import", "tensorflow_datasets.core", 0, seconds]
    hook = {
        "PYTHONPATH": f"{ROOT / 'tests/interrupting'}:{ROOT}",
        "INTERRUPT": json.dumps(moment),
        "INTERRUPT_SENT": str(tmp_path / "sent"),
    }
    command = (*SMALL, "--epochs=50", f"--workdir={tmp_path / 'run'}")
    for status, errors in ends(start_all(2, *command, cwd=tmp_path, last=hook)):
        assert (tmp_path / "sent").exists()
        assert status == 128 + signal.SIGINT, errors
        assert "stopped by SIGINT after step" in errors


@pytest.mark.slow
def test_slurm_says_who_is_who(tmp_path):
    host, port = free_address().split(":")
    command = (*SMALL, "--epochs=1", f"--workdir={tmp_path / 'run'}")
    runs = [
        start(
            *command,
            "--coordinator_address=auto",
            cwd=tmp_path,
            XLA_FLAGS=f"{DEVICES}1",
            SLURM_JOB_ID="1",
            SLURM_STEP_NODELIST=host,
            SLURM_NTASKS="2",
            SLURM_PROCID=str(i),
            SLURM_LOCALID=str(i),
            JAX_COORDINATOR_PORT=port,
        )
        for i in range(2)
    ]
    for status, errors in ends(runs):
        assert status == 0, errors
    assert records.read_result(tmp_path / "run")["device"]["num_processes"] == 2


@pytest.mark.slow
def test_what_one_cannot_do_ends_all(tmp_path):
    command = (*SMALL, "--epochs=2", f"--workdir={tmp_path / 'file/run'}")
    (tmp_path / "file").write_text("mine")
    ended = ends(start_all(2, *command, cwd=tmp_path))
    assert [status for status, _ in ended] == [1, 1]
    first, second = (error_line(errors) for _, errors in ended)
    assert first.startswith(f"error: --workdir={tmp_path / 'file/run'} cannot be")
    assert second == first.replace("error: ", "error: process 0: ")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.slow
def test_one_that_waits_for_others_listens_to_signals(tmp_path):
    run, other = start_all(2, *SMALL, cwd=tmp_path)
    other.kill()
    with socket.socket() as caller:
        # The first of them answers once it waits.
        address = next(x for x in run.args if "address" in x).rpartition(":")[2]
        answers = lambda: caller.connect_ex(("127.0.0.1", int(address))) == 0  # noqa: E731
        assert wait_until(answers, run)
    run.send_signal(signal.SIGTERM)
    assert ends([run, other])[0][0] == 128 + signal.SIGTERM


@pytest.mark.slow
def test_different_numbers_of_devices_are_told(tmp_path):
    command = (*SMALL, f"--workdir={tmp_path / 'run'}")
    for status, errors in ends(start_all(2, *command, cwd=tmp_path, devices=(1, 2))):
        assert status == 1
        assert "the processes have 1, 2 devices: expected as many" in error_line(errors)


@pytest.mark.slow
def test_what_the_first_cannot_write_ends_all_with_its_reason(tmp_path):
    workdir = tmp_path / "run"
    runs = start_all(
        2, *SMALL, "--epochs=400", f"--workdir={workdir}", cwd=tmp_path
    )  # fmt: skip
    assert wait_until(lambda: checkpoint_steps(workdir), runs[0])
    (workdir / records.METRICS).unlink()
    (workdir / records.METRICS).mkdir()
    (_, first), (status, second) = ends(runs)
    assert status == 1 and "metrics.jsonl" in error_line(first)
    assert error_line(second).startswith("error: process 0: ")
    assert "metrics.jsonl" in second
