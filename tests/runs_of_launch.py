"""Runs of launch.py as real processes, and what they leave, compared to the bit."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mnist_jax import predict, records
from mnist_jax.checkpoints import Checkpoints
from mnist_jax.config import Config
from mnist_jax.train import loop
from mnist_jax.train.run import prepare

LAUNCH = str(Path(__file__).parent.parent / "launch.py")
TIMES = ("seconds", "images_per_second")


def start(*arguments: str, cwd: Path, **environment: str) -> subprocess.Popen:
    """Starts launch.py with the devices that a person's machine has."""
    return subprocess.Popen(
        [sys.executable, LAUNCH, *arguments],
        cwd=cwd,
        env={**os.environ, "XLA_FLAGS": "", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def launch(
    *arguments: str, cwd: Path, code: int = 0, **environment: str
) -> tuple[str, str]:
    """Runs launch.py; returns (stdout, stderr)."""
    process = start(*arguments, cwd=cwd, **environment)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == code, output + errors
    return output, errors


def wait_until(happened: Callable[[], Any], process: subprocess.Popen) -> bool:
    """False if the process ended before it happened."""
    while process.poll() is None:
        if happened():
            return True
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


def without_times(workdir: Path) -> list[dict[str, Any]]:
    """metrics.jsonl, but for what a clock says."""
    return [
        {key: value for key, value in epoch.items() if key not in TIMES}
        for epoch in records.read_metrics(workdir)
    ]


def templates(config: Config) -> tuple[Any, Any]:
    """Params and the rest of a checkpoint, as `Checkpoints.restore` wants them."""
    run = prepare(config)
    history = loop.step.Metrics(*np.zeros((2, run.num_steps), np.float32))
    snapshot = loop.Snapshot(run.state, history, loop.Clock())
    return run.state.params, loop.training_tree(snapshot)


def saved(workdir: Path) -> tuple[Any, ...]:
    """Params, optimizer state, history and step of the last checkpoint, and epochs."""
    with Checkpoints(workdir, read_only=True) as checkpoints:
        params, training, epochs = checkpoints.restore(
            *templates(predict.load_config(workdir))
        )
    del training["clock"]
    return params, training, [epoch["epoch"] for epoch in epochs]


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
    assert epochs == list(range(1, predict.load_config(workdir).epochs + 1))
    assert_same_bits(records.read_predictions(workdir), records.read_predictions(other))
    results = [records.read_result(path) for path in (workdir, other)]
    for result in results:
        del result["train_seconds"], result["compile_seconds"]
    assert results[0] == results[1]
