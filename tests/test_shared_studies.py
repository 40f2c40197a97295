"""One study by several processes that share its folder."""

import contextlib
import json
import signal
import sys

import pytest
from runs_of_launch import finish, start_python, wait_until

from experiments.common import runs
from mnist_jax.config import make_config
from mnist_jax.storage import records
from mnist_jax.storage.workdir import InUseError, lock

COMPARE = (
    "-m", "experiments.accuracy.compare_models", "--models=linear,mlp",
    "--datasets=digits", "--seeds=0,1,2", "--epochs=20",
)  # fmt: skip
NAMES = {
    f"digits-default-{model}-{seed}" for model in ("linear", "mlp") for seed in range(3)
}
ENDS = "all runs are trained; another process reports"


def begun(errors):
    """The runs that a process began to train."""
    lines = [line for line in errors.splitlines() if line.startswith("run ")]
    return [line.split(": ")[1].split(",")[0] for line in lines]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="runs are not locked on Windows")
def test_four_processes_one_of_them_killed(tmp_path):
    lost = start_python(*COMPARE, cwd=tmp_path)
    folder = tmp_path / "runs" / "compare"

    def trains():
        return list(folder.glob("*/config.json"))

    assert wait_until(trains, lost)
    others = [start_python(*COMPARE, cwd=tmp_path) for _ in range(3)]
    lost.send_signal(signal.SIGKILL)
    [(_, _, of_lost), *ended] = finish([lost, *others])
    assert all(status == 0 for status, _, _ in ended), ended
    reports = [output for _, output, errors in ended if ENDS not in errors]
    assert len(reports) == 1 and "mlp" in reports[0]
    assert all(not output for _, output, errors in ended if ENDS in errors)
    by_others = [name for _, _, errors in ended for name in begun(errors)]
    assert sorted(by_others) == sorted(set(by_others))
    assert set(by_others) | set(begun(of_lost)) == NAMES
    rows = json.loads((folder / "compare-digits.json").read_text())["rows"]
    assert {row["model"] for row in rows} == {"linear", "mlp"}
    for name in NAMES:
        assert records.read_result(folder / name) is not None


def test_a_run_that_another_process_trains_comes_last(tmp_path, monkeypatch, capsys):
    configs = {
        name: make_config("linear", "digits", epochs=1, num_devices=1, seed=seed)
        for seed, name in enumerate(("first", "second"))
    }
    held = lock(tmp_path / "claims" / "first")
    held.__enter__()

    def wait(seconds):
        held.__exit__(None, None, None)  # the other process is lost

    monkeypatch.setattr(runs.time, "sleep", wait)
    found = runs.train_all(configs, tmp_path)
    assert list(found) == ["first", "second"]
    errors = capsys.readouterr().err
    assert begun(errors) == ["second", "first"]
    assert "1 run left, which other processes train" in errors


def test_who_waited_for_the_last_run_leaves_the_report(tmp_path, monkeypatch, capsys):
    configs = {"run": make_config("linear", "digits", epochs=1, num_devices=1)}
    held = lock(tmp_path / "claims" / "run")
    held.__enter__()

    def wait(seconds):
        held.__exit__(None, None, None)
        runs.train_and_evaluate(configs["run"], tmp_path / "run")

    monkeypatch.setattr(runs.time, "sleep", wait)
    with pytest.raises(SystemExit) as end:
        runs.train_all(configs, tmp_path)
    assert end.value.code == 0 and ENDS in capsys.readouterr().err
    assert runs.train_all(configs, tmp_path)["run"].result["model"] == "linear"


def test_what_another_process_claims_is_waited_for(tmp_path, monkeypatch):
    folder, waits = tmp_path / "claims" / "tuning", []
    with contextlib.ExitStack() as other:
        other.enter_context(lock(folder))

        def sleep(seconds):
            waits.append(seconds)
            other.close()

        monkeypatch.setattr(runs.time, "sleep", sleep)
        with runs.claimed(tmp_path, "tuning"):
            assert len(waits) == 1
            with pytest.raises(InUseError), lock(folder):
                pass
    with lock(folder):
        pass


def test_a_run_that_launch_trains_is_left_to_it(tmp_path, monkeypatch, capsys):
    configs = {"run": make_config("linear", "digits", epochs=1, num_devices=1)}
    held = lock(tmp_path / "run")
    held.__enter__()
    monkeypatch.setattr(runs.time, "sleep", lambda _: held.__exit__(None, None, None))
    assert runs.train_all(configs, tmp_path)["run"].result["model"] == "linear"
    assert begun(capsys.readouterr().err) == ["run", "run"]
