"""One run by several real processes, which meet on 127.0.0.1."""

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
    launch,
    start,
    wait_until,
)

from mnist_jax import parallel, records
from mnist_jax.config import ConfigError
from mnist_jax.parallel import processes

ONE_DEVICE = "--xla_force_host_platform_device_count=1"
MINUTE = 60
SMALL = (
    "--model=mlp", "--dataset=digits", "--hidden_sizes=32", "--dropout=0.2",
    "--augment=affine", "--schedule=onecycle", "--checkpoint_every=1",
)  # fmt: skip


def start_all(number, *arguments, cwd, others=()):
    """Starts so many processes, each in a folder of its own in `cwd`.

    Args:
      others: flags of all but the first.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
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
                XLA_FLAGS=ONE_DEVICE,
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


def error_lines(errors):
    return [line for line in errors.splitlines() if line.startswith("error: ")]


def has_checkpoint(workdir):
    folder = workdir / records.CHECKPOINTS
    return folder.is_dir() and any(p.name.isdecimal() for p in folder.iterdir())


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


def test_two_processes_agree_with_one(two, tmp_path):
    launch(
        *SMALL, "--epochs=20", "--workdir=one", "--num_devices=2", cwd=tmp_path,
        XLA_FLAGS="--xla_force_host_platform_device_count=2",
    )  # fmt: skip
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


def test_all_stop_together_and_go_on_exactly(two, tmp_path):
    command = (*SMALL, "--epochs=20", f"--workdir={tmp_path / 'run'}")
    runs = start_all(2, *command, cwd=tmp_path)
    assert wait_until(lambda: has_checkpoint(tmp_path / "run"), runs[1])
    runs[1].send_signal(signal.SIGTERM)
    for status, errors in finish(runs):
        assert status == 128 + signal.SIGTERM, errors
        assert "stopped by SIGTERM after step" in errors
    train_all(2, *command, cwd=tmp_path)
    assert_same_run(tmp_path / "run", two)


def test_the_others_end_when_one_is_killed_and_the_run_goes_on_exactly(two, tmp_path):
    command = (*SMALL, "--epochs=20", f"--workdir={tmp_path / 'run'}")
    runs = start_all(2, *command, cwd=tmp_path)
    assert wait_until(lambda: has_checkpoint(tmp_path / "run"), runs[1])
    runs[1].kill()
    (status, errors), _ = finish(runs, MINUTE)
    assert status == 1
    [line] = error_lines(errors)
    assert "another of the 2 processes ended" in line and "go on from" in line
    train_all(2, *command, cwd=tmp_path)
    assert_same_run(tmp_path / "run", two)


def test_the_others_end_when_the_first_is_killed(tmp_path):
    command = (*SMALL, "--epochs=400", f"--workdir={tmp_path / 'run'}")
    runs = start_all(2, *command, cwd=tmp_path)
    assert wait_until(lambda: has_checkpoint(tmp_path / "run"), runs[0])
    runs[0].kill()
    _, (status, errors) = finish(runs, MINUTE)
    # The first carries what connects them: JAX may end the others by itself.
    assert status in (1, -signal.SIGABRT)
    assert error_lines(errors) or "coordination service" in errors


def test_four_processes_train_and_end_when_one_is_killed(tmp_path):
    command = (*SMALL, "--epochs=6", f"--workdir={tmp_path / 'run'}")
    runs = start_all(4, *command, "--epochs=400", cwd=tmp_path)
    assert wait_until(lambda: has_checkpoint(tmp_path / "run"), runs[2])
    runs[2].kill()
    ends = finish(runs, MINUTE)
    for number in (0, 1, 3):
        status, errors = ends[number]
        assert status in (1, -signal.SIGABRT), errors
    assert len(error_lines(ends[0][1])) == 1
    train_all(4, *command, "--overwrite", cwd=tmp_path)
    launch(
        *SMALL, "--epochs=6", "--workdir=one", "--num_devices=4", cwd=tmp_path,
        XLA_FLAGS="--xla_force_host_platform_device_count=4",
    )  # fmt: skip
    assert_close_runs(tmp_path / "run", tmp_path / "one")


def test_processes_that_would_train_differently_are_told(tmp_path):
    command = (*SMALL, "--epochs=2", f"--workdir={tmp_path / 'run'}")
    ends = finish(start_all(2, *command, cwd=tmp_path, others=("--seed=5",)), MINUTE)
    for status, errors in ends:
        assert status == 1
        [line] = error_lines(errors)
        assert "has other settings, data or versions than process" in line
    assert not (tmp_path / "run").exists()


def test_slurm_says_who_is_who(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = ("127.0.0.1", str(free.getsockname()[1]))
    command = (*SMALL, "--epochs=1", f"--workdir={tmp_path / 'run'}")
    runs = [
        start(
            *command,
            "--coordinator_address=auto",
            cwd=tmp_path,
            XLA_FLAGS=ONE_DEVICE,
            SLURM_JOB_ID="1",
            SLURM_STEP_NODELIST=address[0],
            SLURM_NTASKS="2",
            SLURM_PROCID=str(i),
            SLURM_LOCALID=str(i),
            JAX_COORDINATOR_PORT=address[1],
        )
        for i in range(2)
    ]
    for status, errors in finish(runs):
        assert status == 0, errors
    assert records.read_result(tmp_path / "run")["device"]["num_processes"] == 2


def test_what_one_cannot_do_ends_all(tmp_path):
    command = (*SMALL, "--epochs=2", f"--workdir={tmp_path / 'file/run'}")
    (tmp_path / "file").write_text("mine")
    ends = finish(start_all(2, *command, cwd=tmp_path), MINUTE)
    assert [status for status, _ in ends] == [1, 1]
    [[first], [second]] = [error_lines(errors) for _, errors in ends]
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
        timeout=MINUTE,
    )
    assert done.returncode == 1, done.stderr
    [line] = error_lines(done.stderr)
    assert "--coordinator_address=auto" in line and "Traceback" not in done.stderr


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


def test_what_processes_say_to_each_other_arrives(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    root = str(Path(LAUNCH).parent)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MEETING, address, str(i)],
            env={**os.environ, "PYTHONPATH": root, "XLA_FLAGS": ONE_DEVICE},
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    outputs = [p.communicate(timeout=MINUTE)[0] for p in processes]
    said = [json.loads(output.splitlines()[-1]) for output in outputs]
    first = np.array([-0.0, 0.1, np.nan]).tobytes().hex()
    for one in said:
        assert one["agreed"] == [1, 7, -5]
        assert one["shared"] == [first, [0, 1, 2]]
    assert said[0]["told"][0] == "process 1: r\u00e9sum\u00e9 lost"
    assert said[1]["told"][0] == "r\u00e9sum\u00e9 lost"
    for one in said:
        assert "other settings, data or versions" in one["told"][1]
