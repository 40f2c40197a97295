"""One, two, four and eight devices do the same work.

The session has four devices, so this file is also a program, which is started with
eight: `python tests/test_many_devices.py FOLDER` leaves what it saw in
FOLDER/seen.json.
"""

import dataclasses
import json
import signal
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from runs_of_launch import finish, start_python

from mnist_jax import training
from mnist_jax.config import make_config
from mnist_jax.signals import Interrupted
from mnist_jax.storage import records
from mnist_jax.training_setup import prepare

COMPARED, NUM_STEPS, BATCH_SIZE = 10, 100, 64
MODELS = {
    "mlp": dict(hidden_sizes=(32,), dropout=0.3, augment="affine"),
    "cnn": dict(dropout=0.5, augment="shift"),
    "gru": dict(units=16, dropout=0.2, augment="shift"),
}
CASES = [(model, count) for model in MODELS for count in (2, 4, 8)]
MOVES = [(8, 2), (1, 4)]  # devices, and after the stop
FLAGS = "--xla_force_host_platform_device_count=8"

pytestmark = pytest.mark.slow  # minutes


def make(model, num_devices):
    """A run with all that is random switched on, and a rate that changes."""
    return make_config(
        model,
        "digits",
        batch_size=BATCH_SIZE,
        epochs=6,
        schedule="onecycle",
        num_devices=num_devices,
        **MODELS[model],
    )


def train_steps(config, total):
    """The losses of so many steps, and the state after them, on all devices."""
    trainer, losses, epoch = prepare(config).trainer, [], 0
    while len(losses) < total:
        trainer.start_epoch(epoch)
        last = min(trainer.num_steps, total - len(losses))
        trainer.run(0, last)
        losses += trainer.metrics()["loss"][:last].tolist()
        epoch += 1
    return losses, trainer.state


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
    config, check = make("mlp", before), training.check_loss

    def stop_in_second_epoch(losses, done, config):
        check(losses, done, config)
        if done >= 19:
            signal.raise_signal(signal.SIGTERM)

    training.check_loss, message = stop_in_second_epoch, ""
    try:
        training.train_and_evaluate(config, workdir)
    except Interrupted as stop:
        message = str(stop)
    finally:
        training.check_loss = check
    config = dataclasses.replace(config, num_devices=after)
    result = training.train_and_evaluate(config, workdir)
    return {
        "stop": message,
        "devices": result["device"]["num_devices"],
        "losses": train_losses(workdir),
    }


def main(folder):
    seen = {"losses": {}, "copies": {}}
    for model in MODELS:
        seen["losses"][f"{model}-1"], _ = train_steps(make(model, 1), COMPARED)
    for model, count in CASES:
        losses, state = train_steps(make(model, count), NUM_STEPS)
        seen["losses"][f"{model}-{count}"] = losses[:COMPARED]
        seen["copies"][f"{model}-{count}"] = copies(state)
    training.train_and_evaluate(make("mlp", 1), folder / "whole")
    seen["whole"] = train_losses(folder / "whole")
    for before, after in MOVES:
        name = f"{before}-{after}"
        seen[name] = move(folder / name, before, after)
    (folder / "seen.json").write_text(json.dumps(seen))


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What `main` saw."""
    folder = tmp_path_factory.mktemp("devices")
    process = start_python(__file__, folder, XLA_FLAGS=FLAGS)
    [(status, output, errors)] = finish([process], seconds=900)
    assert status == 0, output + errors
    return json.loads((folder / "seen.json").read_text())


@pytest.mark.parametrize("model, num_devices", CASES)
def test_the_first_losses_are_those_of_one_device(seen, model, num_devices):
    losses = seen["losses"]
    one = losses[f"{model}-1"]
    assert len(set(one)) == COMPARED, "losses differ step by step"
    np.testing.assert_allclose(losses[f"{model}-{num_devices}"], one, rtol=0, atol=1e-5)


@pytest.mark.parametrize("model, num_devices", CASES)
def test_after_100_steps_every_device_holds_the_same_bits(seen, model, num_devices):
    # With out_axes=None a missing average would diverge without a word.
    arrays = seen["copies"][f"{model}-{num_devices}"]
    assert any(".params" in name for name in arrays)
    assert any(".opt_state" in name for name in arrays)
    assert arrays == {name: [num_devices, 0] for name in arrays}


@pytest.mark.parametrize("before, after", MOVES)
def test_a_stopped_run_goes_on_with_other_devices(seen, before, after):
    whole, moved = seen["whole"], seen[f"{before}-{after}"]
    assert "the run is saved in" in moved["stop"]
    assert moved["devices"] == after
    assert len(moved["losses"]) == len(whole) == 6
    np.testing.assert_allclose(moved["losses"], whole, rtol=0, atol=1e-3)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
