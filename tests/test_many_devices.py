"""One, two, four and eight devices do the same work.

The session has four devices, so this file is also a program, which is started with
eight: `python tests/test_many_devices.py FOLDER short` leaves what it saw in
FOLDER/seen.json, and with `slow` does all cases, in programs as optimized as any.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from mnist_jax import parallel, records, train
from mnist_jax.config import ConfigError, make_config
from mnist_jax.step import Metrics
from mnist_jax.train import loop
from mnist_jax.train.run import epoch_order, prepare

COMPARED, NUM_STEPS, BATCH_SIZE = 10, 100, 64
MODELS = {
    "mlp": dict(hidden_sizes=(32,), dropout=0.3, augment="affine"),
    "cnn": dict(dropout=0.5, augment="shift"),
    "gru": dict(units=16, dropout=0.2, augment="shift"),
}
PARTS = {
    "short": [("mlp", 2), ("mlp", 4), ("mlp", 8), ("gru", 8)],
    "slow": [(model, count) for model in MODELS for count in (2, 4, 8)],
}
CASES = [
    pytest.param(*case, part, marks=[pytest.mark.slow] if part == "slow" else [])
    for part, cases in PARTS.items()
    for case in cases
]
# Nearly all of the time is compilation, of which less optimization spares much.
FLAGS = {
    "short": "--xla_force_host_platform_device_count=8"
    " --xla_backend_optimization_level=1",
    "slow": "--xla_force_host_platform_device_count=8",
}
MOVES = [(8, 2), (1, 4)]  # devices at the start, and after the stop
UNEVEN = [(2, 33), (4, 30), (8, 36)]  # devices, images in a batch


def make(model, num_devices, **settings):
    """A run with all that is random switched on, and a rate that changes."""
    settings = {"batch_size": BATCH_SIZE, "epochs": 6, **MODELS[model], **settings}
    return make_config(
        model, "digits", schedule="onecycle", num_devices=num_devices, **settings
    )


def train_steps(config, total):
    """The losses of so many steps, and the state after them, on all devices.

    By the programs of the training loop, which the runs below find compiled.
    """
    run = prepare(config)
    data = run.dataset.train_images, run.dataset.train_labels, np.uint32(config.seed)
    state, data = parallel.replicate((run.state, data), run.devices)
    losses = []
    for epoch in range(config.epochs):
        order = epoch_order(run.train_rows, config.batch_size, config.seed, epoch)
        order = parallel.split_order(order, len(run.devices))
        history = Metrics(*np.zeros((2, run.num_steps), np.float32))
        history = parallel.replicate(history, run.devices)
        last = min(run.num_steps, total - len(losses))
        state, history = run.chunk(state, history, *data, order, 0, last)
        losses += np.asarray(history.loss)[:last].tolist()
    assert len(losses) == total
    return losses, state


def copies(state):
    """Of every array of a state: how many devices hold it, and how many differ."""
    seen = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        shards = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        different = sum(shard.tobytes() != shards[0].tobytes() for shard in shards)
        seen[jax.tree_util.keystr(path)] = [len(shards), different]
    return seen


def train_losses(workdir):
    return [epoch["train_loss"] for epoch in records.read_metrics(workdir)]


def move(workdir, before, after):
    """A run that changes devices in its second epoch."""
    config, check = make("mlp", before), loop._check_finite

    def stop_in_second_epoch(losses, done, config):
        check(losses, done, config)
        if done >= 19:
            signal.raise_signal(signal.SIGTERM)

    loop._check_finite, message = stop_in_second_epoch, ""
    try:
        train.train_and_evaluate(config, workdir)
    except train.Interrupted as stop:
        message = str(stop)
    finally:
        loop._check_finite = check
    config = dataclasses.replace(config, num_devices=after)
    result = train.train_and_evaluate(config, workdir)
    return {
        "stop": message,
        "devices": result["device"]["num_devices"],
        "losses": train_losses(workdir),
    }


def refusal(workdir, num_devices, batch_size):
    """What is said of a batch, and whether anything was written before."""
    try:
        train.train_and_evaluate(
            make("mlp", num_devices, batch_size=batch_size), workdir
        )
    except ConfigError as error:
        return str(error), workdir.exists()
    return "", workdir.exists()


def main(folder, part):
    seen = {"losses": {}, "copies": {}}
    for model in dict(PARTS[part]):
        seen["losses"][f"{model}-1"], _ = train_steps(make(model, 1), COMPARED)
    for model, count in PARTS[part]:
        losses, state = train_steps(make(model, count), NUM_STEPS)
        seen["losses"][f"{model}-{count}"] = losses[:COMPARED]
        seen["copies"][f"{model}-{count}"] = copies(state)
    if part == "short":
        train.train_and_evaluate(make("mlp", 1), folder / "whole")
        seen["whole"] = train_losses(folder / "whole")
        for before, after in MOVES:
            name = f"{before}-{after}"
            seen[name] = move(folder / name, before, after)
        for count, size in UNEVEN:
            seen[f"{count}-{size}"] = refusal(folder / "uneven", count, size)
    (folder / "seen.json").write_text(json.dumps(seen))


@pytest.fixture(scope="module")
def watch(tmp_path_factory):
    """'short' or 'slow' -> what `main` saw."""
    seen = {}

    def watch(part):
        if part not in seen:
            folder = tmp_path_factory.mktemp(part)
            root = str(Path(__file__).parents[1])
            done = subprocess.run(
                [sys.executable, __file__, folder, part],
                env={**os.environ, "XLA_FLAGS": FLAGS[part], "PYTHONPATH": root},
                capture_output=True,
                text=True,
                timeout=600,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            seen[part] = json.loads((folder / "seen.json").read_text())
        return seen[part]

    return watch


@pytest.mark.parametrize("model, num_devices, part", CASES)
def test_the_first_losses_are_those_of_one_device(watch, model, num_devices, part):
    losses = watch(part)["losses"]
    one = losses[f"{model}-1"]
    assert len(set(one)) == COMPARED, "losses differ step by step"
    np.testing.assert_allclose(losses[f"{model}-{num_devices}"], one, rtol=0, atol=1e-5)


@pytest.mark.parametrize("model, num_devices, part", CASES)
def test_after_100_steps_every_device_holds_the_same_bits(
    watch, model, num_devices, part
):
    # With out_axes=None a missing average would diverge without a word.
    arrays = watch(part)["copies"][f"{model}-{num_devices}"]
    assert any(".params" in name for name in arrays)
    assert any(".opt_state" in name for name in arrays)
    assert arrays == {name: [num_devices, 0] for name in arrays}


@pytest.mark.parametrize("before, after", MOVES)
def test_a_stopped_run_goes_on_with_other_devices(watch, before, after):
    whole, moved = watch("short")["whole"], watch("short")[f"{before}-{after}"]
    assert "the run is saved in" in moved["stop"]
    assert moved["devices"] == after
    assert len(moved["losses"]) == len(whole) == 6
    np.testing.assert_allclose(moved["losses"], whole, rtol=0, atol=1e-3)


@pytest.mark.parametrize("num_devices, batch_size", UNEVEN)
def test_an_uneven_batch_is_refused_before_anything_is_written(
    watch, num_devices, batch_size
):
    message, written = watch("short")[f"{num_devices}-{batch_size}"]
    assert f"--batch_size={batch_size} does not divide" in message
    assert f"give a multiple of {num_devices}" in message
    assert not written


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
