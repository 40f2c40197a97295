"""One run by several real processes, which meet on 127.0.0.1."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from runs_of_launch import (
    LAUNCH,
    assert_same_run,
    error_line,
    free_address,
    start,
    wait_until,
)

from mnist_jax import parallel, predict, records, train
from mnist_jax.config import ConfigError
from mnist_jax.parallel import processes

DEVICES = "--xla_force_host_platform_device_count="
MINUTE = 60
SMALL = (
    "--model=mlp", "--dataset=digits", "--hidden_sizes=32", "--dropout=0.2",
    "--augment=affine", "--schedule=onecycle", "--checkpoint_every=1",
)  # fmt: skip


def start_all(number, *arguments, cwd, others=(), devices=(1, 1, 1, 1)):
    """Starts so many processes, each in a folder of its own in `cwd`.

    Args:
      others: flags of all but the first.
      devices: how many each has.
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
            )
        )
    return runs


def finish(runs, seconds=300):
    """[(status, stderr)] of all; kills what is left after so long, and fails."""
    try:
        outputs = [process.communicate(timeout=seconds) for process in runs]
    finally:
        for process in runs:
            process.kill()
    for _, errors in outputs:
        assert "Traceback" not in errors, errors
    return [(p.returncode, o[1]) for p, o in zip(runs, outputs, strict=True)]


def train_all(number, *arguments, cwd):
    for status, errors in finish(start_all(number, *arguments, cwd=cwd)):
        assert status == 0, errors


def checkpoints(workdir):
    """Steps of those there are."""
    folder = workdir / records.CHECKPOINTS
    names = os.listdir(folder) if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal())


def has_checkpoint(workdir):
    return bool(checkpoints(workdir))


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
    config = predict.load_config(workdir)
    train.train_and_evaluate(dataclasses.replace(config, num_devices=devices), other)


def test_two_processes_agree_with_one(two, tmp_path):
    train_alone(two, tmp_path / "one")
    assert_close_runs(two, tmp_path / "one")
    devices = [records.read_result(p)["device"] for p in (two, tmp_path / "one")]
    assert [d["num_processes"] for d in devices] == [2, 1]
    assert [d["num_devices"] for d in devices] == [2, 2]


def test_only_the_first_process_writes(two):
    for i in range(2):
        assert not any((two.parent / f"process-{i}").iterdir())
    assert sorted(path.name for path in two.parent.iterdir()) == [
        "process-0", "process-1", "run"
    ]  # fmt: skip


def test_all_stop_together_or_end_when_one_is_killed_and_go_on_exactly(two, tmp_path):
    workdir = tmp_path / "run"
    command = (*SMALL, "--epochs=20", f"--workdir={workdir}")
    runs = start_all(2, *command, cwd=tmp_path)
    assert wait_until(lambda: has_checkpoint(workdir), runs[1])
    runs[1].send_signal(signal.SIGTERM)
    for status, errors in finish(runs):
        assert status == 128 + signal.SIGTERM, errors
        assert "stopped by SIGTERM after step" in errors

    before = checkpoints(workdir)
    runs = start_all(2, *command, cwd=tmp_path)
    assert wait_until(lambda: checkpoints(workdir) > before, runs[1])
    runs[1].kill()
    (status, errors), _ = finish(runs, MINUTE)
    assert status == 1
    line = error_line(errors)
    assert "another of the 2 processes ended" in line and "go on from" in line

    train_all(2, *command, cwd=tmp_path)
    assert_same_run(workdir, two)


@pytest.mark.slow
def test_the_others_end_when_the_first_is_killed(tmp_path):
    command = (*SMALL, "--epochs=400", f"--workdir={tmp_path / 'run'}")
    runs = start_all(2, *command, cwd=tmp_path)
    assert wait_until(lambda: has_checkpoint(tmp_path / "run"), runs[0])
    runs[0].kill()
    _, (status, errors) = finish(runs, MINUTE)
    # The first carries what connects them: JAX may end the others by itself.
    assert status in (1, -signal.SIGABRT)
    assert "error: another of" in errors or "coordination service" in errors


def test_four_processes_agree_with_one(tmp_path):
    train_all(4, *SMALL, "--epochs=6", f"--workdir={tmp_path / 'run'}", cwd=tmp_path)
    train_alone(tmp_path / "run", tmp_path / "one")
    assert_close_runs(tmp_path / "run", tmp_path / "one")


@pytest.mark.slow
def test_four_processes_end_when_one_is_killed_and_go_on_exactly(tmp_path):
    workdir, other = tmp_path / "run", tmp_path / "other"
    command = (*SMALL, "--epochs=40")
    runs = start_all(4, *command, f"--workdir={workdir}", cwd=tmp_path)
    assert wait_until(lambda: has_checkpoint(workdir), runs[2])
    runs[2].kill()
    ends = finish(runs, MINUTE)
    for number in (0, 1, 3):
        status, errors = ends[number]
        assert status in (1, -signal.SIGABRT), errors
    error_line(ends[0][1])
    for folder in (workdir, other):
        train_all(4, *command, f"--workdir={folder}", cwd=tmp_path)
    assert_same_run(workdir, other)


def test_processes_that_would_train_differently_are_told(tmp_path):
    command = (*SMALL, "--epochs=2", f"--workdir={tmp_path / 'run'}")
    ends = finish(start_all(2, *command, cwd=tmp_path, others=("--seed=5",)))
    for status, errors in ends:
        assert status == 1
        line = error_line(errors)
        assert "has other settings, data or versions than process" in line
    assert not (tmp_path / "run").exists()


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
    for status, errors in finish(runs):
        assert status == 0, errors
    assert records.read_result(tmp_path / "run")["device"]["num_processes"] == 2


def test_what_one_cannot_do_ends_all(tmp_path):
    command = (*SMALL, "--epochs=2", f"--workdir={tmp_path / 'file/run'}")
    (tmp_path / "file").write_text("mine")
    ends = finish(start_all(2, *command, cwd=tmp_path))
    assert [status for status, _ in ends] == [1, 1]
    first, second = (error_line(errors) for _, errors in ends)
    assert first.startswith(f"error: --workdir={tmp_path / 'file/run'} cannot be")
    assert second == first.replace("error: ", "error: process 0: ")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (("host", 2, 0), "--coordinator_address=host: expected host:port"),
        (("host:port", 2, 0), "--coordinator_address=host:port: expected host:port"),
        (("h:99999", 2, 0), "--coordinator_address=h:99999: expected host:port"),
        (("h:1", None, 0), "--num_processes=None: expected"),
        (("h:1", 0, 0), "--num_processes=0: expected"),
        (("h:1", 2, None), "--process_id=None: expected"),
        (("h:1", 2, 2), "--process_id=2: expected .* from 0 to 1"),
        (("h:1", 2, -1), "--process_id=-1: expected"),
        ((None, 2, None), "--num_processes=2 needs --coordinator_address"),
        (("auto", None, 1), "--process_id=1 needs --coordinator_address"),
    ],
)
def test_flags_that_do_not_fit_are_told(arguments, expected):
    with pytest.raises(ConfigError, match=expected):
        processes.join(*arguments)


def test_auto_outside_of_a_cluster_is_told(tmp_path):
    clusters = ("SLURM", "OMPI", "PMIX", "KUBERNETES", "TPU", "CLOUD_TPU", "JOB_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(clusters)}
    done = subprocess.run(
        [sys.executable, LAUNCH, "--coordinator_address=auto", "--dataset=digits"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1, done.stderr
    line = error_line(done.stderr)
    assert "--coordinator_address=auto" in line


def test_by_itself_a_process_is_the_first_and_agrees_with_itself():
    assert parallel.is_first() and not parallel.is_one_of_several()
    assert parallel.agree(3, False) == [3, False]
    tree = {"a": np.array([-0.0, 1.0])}
    assert parallel.share(tree) is tree
    parallel.check_same("x")
    with pytest.raises(ConfigError, match="mine"):
        with parallel.together((ConfigError,)):
            raise ConfigError("mine")


MEETING = """
import json, sys
import numpy as np
from mnist_jax import parallel

parallel.start(1, sys.argv[1], 2, int(sys.argv[2]))
number = int(sys.argv[2])
tree = {"a": np.array([-0.0, 0.1, np.nan])[number:], "b": np.arange(3) * (1 - number)}
tree["a"] = np.resize(tree["a"], 3) if number else tree["a"]
shared = parallel.share(tree)
told = []
try:
    with parallel.together((ValueError,)):
        if number == 1:
            raise ValueError("r\\u00e9sum\\u00e9 lost")
except (ValueError, parallel.ProcessError) as error:
    told.append(str(error))
try:
    parallel.check_same("abc"[: 2 + number])
except parallel.ProcessError as error:
    told.append(str(error))
print(json.dumps({
    "agreed": parallel.agree(number, 7 - number, -5),
    "shared": [shared["a"].tobytes().hex(), shared["b"].tolist()],
    "told": told,
}))
"""


def start_scripts(script, *arguments):
    """Two processes of a Python script, which is given the address and its number."""
    address, root = free_address(), str(Path(LAUNCH).parent)
    return [
        subprocess.Popen(
            [sys.executable, "-c", script, address, str(i), *arguments],
            env={**os.environ, "PYTHONPATH": root, "XLA_FLAGS": f"{DEVICES}1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]


def test_what_processes_say_to_each_other_arrives():
    runs = start_scripts(MEETING)
    outputs = [run.stdout.read() for run in runs]
    finish(runs)
    said = [json.loads(output.splitlines()[-1]) for output in outputs]
    first = np.array([-0.0, 0.1, np.nan]).tobytes().hex()
    for one in said:
        assert one["agreed"] == [1, 7, -5]
        assert one["shared"] == [first, [0, 1, 2]]
    assert said[0]["told"][0] == "process 1: r\u00e9sum\u00e9 lost"
    assert said[1]["told"][0] == "r\u00e9sum\u00e9 lost"
    for one in said:
        assert "other settings, data or versions" in one["told"][1]


ALONE = """
import sys
from absl import app
import launch
from mnist_jax.parallel import processes

processes._JOIN_SECONDS = 3
app.run(launch.main, ["launch.py", "--dataset=digits", "--num_processes=2",
    f"--coordinator_address={sys.argv[1]}", f"--process_id={sys.argv[2]}"])
"""


@pytest.mark.parametrize("number", [0, 1])
def test_one_that_is_left_alone_ends_with_a_line(number):
    runs = start_scripts(ALONE)
    runs[1 - number].kill()
    status, errors = finish(runs)[number]
    assert status == 1
    assert "did not find each other (not all were there within 3 s" in error_line(
        errors
    )


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
    assert finish([run, other], MINUTE)[0][0] == 128 + signal.SIGTERM


def test_different_numbers_of_devices_are_told(tmp_path):
    command = (*SMALL, f"--workdir={tmp_path / 'run'}")
    for status, errors in finish(start_all(2, *command, cwd=tmp_path, devices=(1, 2))):
        assert status == 1
        assert "the processes have 1, 2 devices: expected as many" in error_line(errors)


def test_what_the_first_cannot_write_ends_all_with_its_reason(tmp_path):
    workdir = tmp_path / "run"
    runs = start_all(
        2, *SMALL, "--epochs=400", f"--workdir={workdir}", cwd=tmp_path
    )  # fmt: skip
    assert wait_until(lambda: has_checkpoint(workdir), runs[0])
    (workdir / records.METRICS).unlink()
    (workdir / records.METRICS).mkdir()
    (_, first), (status, second) = finish(runs)
    assert status == 1 and "metrics.jsonl" in error_line(first)
    assert error_line(second).startswith("error: process 0: ")
    assert "metrics.jsonl" in second
