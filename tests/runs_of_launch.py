"""Runs by launch.py or in this process, and what they leave, compared to the bit."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from forked_launch import XLA_FLAGS

from mnist_jax import snapshot, training
from mnist_jax.config import Config, make_config
from mnist_jax.signals import Interrupted
from mnist_jax.storage import records
from mnist_jax.storage.checkpoints import Checkpoints
from mnist_jax.storage.stored_run import require_config
from mnist_jax.training_setup import prepare

ROOT = Path(__file__).resolve().parents[1]
LAUNCH = str(ROOT / "launch.py")
SECONDS = 300  # that anything here may take; on a busy machine it takes its time
TIMES = ("seconds", "images_per_second")


def start_python(
    *arguments: str | Path, cwd: Path | None = None, **environment: str
) -> subprocess.Popen:
    """Starts a Python program that imports the package from here."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start(*arguments: str, cwd: Path, **environment: str) -> subprocess.Popen:
    """Starts launch.py with the devices that a person's machine has."""
    environment = {"XLA_FLAGS": XLA_FLAGS, **environment}
    return start_python(LAUNCH, *arguments, cwd=cwd, **environment)


def finish(
    processes: Sequence[subprocess.Popen], seconds: float = SECONDS
) -> list[tuple[int, str, str]]:
    """(status, stdout, stderr) of each; ends them all and fails if one takes longer."""
    try:
        outputs = [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(p.returncode, *o) for p, o in zip(processes, outputs, strict=True)]


def ends(processes: Sequence[subprocess.Popen]) -> list[tuple[int, str]]:
    """(status, stderr) of each, as `finish`; none ended in a traceback."""
    ended = [(status, errors) for status, _, errors in finish(processes)]
    for _, errors in ended:
        assert "Traceback" not in errors, errors
    return ended


def launch(
    *arguments: str, cwd: Path, code: int = 0, **environment: str
) -> tuple[str, str]:
    """Runs launch.py; returns (stdout, stderr)."""
    [(status, output, errors)] = finish([start(*arguments, cwd=cwd, **environment)])
    assert status == code, output + errors
    return output, errors


def wait_until(happened: Callable[[], Any], process: subprocess.Popen) -> bool:
    """False if the process ended before it happened."""
    deadline = time.monotonic() + SECONDS
    while process.poll() is None:
        if happened():
            return True
        if time.monotonic() > deadline:
            process.kill()
            raise TimeoutError(f"nothing within {SECONDS} s: {process.communicate()}")
        time.sleep(0.002)
    return False


def error_line(errors: str) -> str:
    """The one line that says what is wrong."""
    assert "Traceback" not in errors, errors
    [line] = [line for line in errors.splitlines() if line.startswith("error: ")]
    return line


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def make_mlp(**settings):
    """A small run with all that is random switched on."""
    settings = {
        "epochs": 3,
        "hidden_sizes": (16,),
        "dropout": 0.2,
        "augment": "affine",
        "schedule": "onecycle",
        "num_devices": 2,
        **settings,
    }
    return make_config("mlp", "digits", **settings)


def train_until(stops, config, workdir):
    """Trains until `stops(losses, steps done before)`, as if SIGTERM came then."""

    def check_and_stop(losses, done, config):
        if stops(losses, done):
            signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "check_loss", check_and_stop)
        with pytest.raises(Interrupted, match="SIGTERM after step .*saved in"):
            training.train_and_evaluate(config, workdir)
    assert records.read_result(workdir) is None


def checkpoint_steps(workdir: Path) -> list[int]:
    """Steps of the checkpoints that there are."""
    folder = workdir / records.CHECKPOINTS
    names = os.listdir(folder) if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal())


def without_times(workdir: Path) -> list[dict[str, Any]]:
    """metrics.jsonl, but for what a clock says."""
    return [
        {key: value for key, value in epoch.items() if key not in TIMES}
        for epoch in records.read_metrics(workdir)
    ]


def templates(config: Config) -> tuple[Any, Any]:
    """Params and the rest of a checkpoint, as `Checkpoints.restore` wants them."""
    setup = prepare(config)
    training_tree = snapshot.training_tree(setup.trainer, snapshot.Clock())
    return jax.device_get((setup.trainer.state.params, training_tree))


def saved(workdir: Path) -> tuple[Any, ...]:
    """Params, optimizer state, history and step of the last checkpoint, and epochs."""
    config = require_config(workdir).config
    with Checkpoints(workdir, config.identity(), read_only=True) as checkpoints:
        params, training_tree, epochs = checkpoints.restore(*templates(config))
    del training_tree["clock"]
    return params, training_tree, [epoch["epoch"] for epoch in epochs]


def assert_same_bits(tree: Any, other: Any) -> None:
    """Unlike NumPy's own comparison it tells 0.0 from -0.0."""
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    for ours, theirs in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        assert ours.tobytes() == theirs.tobytes()


def assert_same_run(workdir: Path, other: Path) -> None:
    """State, metrics and what figures are drawn from are the same, bit for bit."""
    assert_same_bits(saved(workdir), saved(other))
    assert without_times(workdir) == without_times(other)
    epochs = [epoch["epoch"] for epoch in records.read_metrics(workdir)]
    assert epochs == list(range(1, require_config(workdir).config.epochs + 1))
    assert_same_bits(records.read_predictions(workdir), records.read_predictions(other))
    results = [records.read_result(path) for path in (workdir, other)]
    for result in results:
        del result["train_seconds"], result["compile_seconds"]
    assert results[0] == results[1]
