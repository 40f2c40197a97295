import json

import jax
import numpy as np
import optax
import pytest
from runs_of_launch import assert_same_bits as assert_same

from mnist_jax import train_step
from mnist_jax.config import make_config
from mnist_jax.models import make_model
from mnist_jax.parallel import placement
from mnist_jax.storage.checkpoint_io import Unusable
from mnist_jax.storage.checkpoints import CheckpointError, Checkpoints

IDENTITY = {"model": "mlp"}
EPOCHS = [{"epoch": 1, "train_loss": 0.1 + 0.2, "validation_loss": None}]


def make_items(seed=0):
    model, optimizer = make_model("mlp", 10, hidden_sizes=(8,)), optax.adam(1e-3)
    state = jax.device_get(train_step.init_state(model, optimizer, seed, (28, 28, 1)))
    training = {
        "step": state.step,
        "opt_state": state.opt_state,
        "history": {"accuracy": np.ones(5, np.float32), "loss": np.zeros(5, "f4")},
        "clock": {"train": np.float32(1.5)},
    }
    return state.params, training


def test_what_is_saved_is_restored_bit_for_bit(tmp_path):
    params, training = make_items()
    params["Dense_0"]["bias"] = np.full(8, -0.0, np.float32)
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        checkpoints.save(3, params, training, EPOCHS)
    blank = jax.tree.map(np.zeros_like, (params, training))
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        assert checkpoints.latest_step() == 3
        *trees, epochs = checkpoints.restore(*blank)
        assert_same(tuple(trees), (params, training))
        assert np.signbit(trees[0]["Dense_0"]["bias"]).all()
        assert epochs == EPOCHS
        step, found = checkpoints.restore_params(blank[0])
        assert step == 3
        assert_same(found, params)


@pytest.mark.parametrize("several", [False, True])
def test_settings_that_no_longer_decide_a_run_are_passed_over(tmp_path, several):
    params, training = make_items()
    before = IDENTITY | {"remat_steps": 28}
    identities = ([before] * 2, [IDENTITY] * 2) if several else (before, IDENTITY)
    with Checkpoints(tmp_path, identities[0]) as checkpoints:
        checkpoints.save(3, params, training)
    with Checkpoints(tmp_path, identities[1]) as checkpoints:
        assert checkpoints.restore_params(params)[0] == 3


def test_arrays_on_several_devices_are_saved_once(tmp_path):
    params, training = make_items()
    on_devices = placement.replicate((params, training), jax.devices())
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        checkpoints.save(1, *on_devices)
        assert_same(checkpoints.restore(params, training)[:2], (params, training))


def test_the_last_two_are_kept(tmp_path):
    items = [make_items(seed) for seed in range(4)]
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        for i, (params, training) in enumerate(items):
            checkpoints.save(i, params, training)
        step, found = checkpoints.restore_params(items[0][0])
        assert step == 3
        assert_same(found, items[3][0])
        assert_same(checkpoints.restore(*items[0], step=2)[:2], items[2])
        with pytest.raises(CheckpointError, match="holds no checkpoint"):
            checkpoints.restore(*items[0], step=1)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["2", "3"]


def test_saving_the_same_step_again_is_harmless(tmp_path):
    params, training = make_items()
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        checkpoints.save(5, params, training)
        checkpoints.save(5, params, training)
        assert checkpoints.latest_step() == 5


def test_no_checkpoint_is_told_in_one_line(tmp_path):
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        assert checkpoints.latest_step() is None
        with pytest.raises(CheckpointError, match="holds no checkpoint"):
            checkpoints.restore_params(make_items()[0])


@pytest.mark.parametrize("content", [b"", b"{", b"\x80\x04garbage"])
def test_a_damaged_checkpoint_is_told_in_one_line(tmp_path, content):
    params, training = make_items()
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        checkpoints.save(7, params, training)
    for path in (tmp_path / "checkpoints/7/params").rglob("*"):
        if path.is_file():
            path.write_bytes(content)
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        with pytest.raises(CheckpointError) as caught:
            checkpoints.restore(params, training)
    assert str(tmp_path / "checkpoints/7") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read_only", [False, True])
def test_the_one_that_is_asked_for_is_damaged_and_another_is_not(tmp_path, read_only):
    params, training = make_items()
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        checkpoints.save(6, params, training)
        checkpoints.save(7, params, training)
    for path in (tmp_path / "checkpoints/7/params").rglob("*"):
        if path.is_file():
            path.write_bytes(b"{")
    with Checkpoints(tmp_path, IDENTITY, read_only) as checkpoints:
        with pytest.raises(CheckpointError, match="7 cannot be read"):
            checkpoints.restore(params, training, step=7)


def test_a_reader_takes_what_has_replaced_the_checkpoints_that_it_saw(
    tmp_path, monkeypatch
):
    items = [make_items(seed) for seed in range(3)]
    read = Checkpoints._read

    def read_too_late(self, step, templates):
        monkeypatch.setattr(Checkpoints, "_read", read)
        for new in (1, 2):
            trainer.save(new, *items[new])
        raise Unusable(f"{step} is gone")

    with Checkpoints(tmp_path, IDENTITY) as trainer:
        trainer.save(0, *items[0])
        with Checkpoints(tmp_path, IDENTITY, read_only=True) as reader:
            monkeypatch.setattr(Checkpoints, "_read", read_too_late)
            step, found = reader.restore_params(items[0][0])
    assert step == 2
    assert_same(found, items[2][0])


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    params, training = make_items()
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        checkpoints.save(7, params, training)
        shapes = train_step.init_params_shapes(make_model("linear", 10), (28, 28, 1))
        other = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
        with pytest.raises(CheckpointError, match="cannot be read"):
            checkpoints.restore_params(other)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    params, training = make_items()
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        checkpoints.save(7, params, training)
    with Checkpoints(tmp_path, IDENTITY | {"seed": 1}) as checkpoints:
        with pytest.raises(CheckpointError, match="it is of another run"):
            checkpoints.restore(params, training)


def test_a_history_has_the_metrics_that_it_was_saved_with(tmp_path):
    params, training = make_items()
    history = training["history"] | {"old": np.full(5, 2, np.float32)}
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        checkpoints.save(7, params, training | {"history": history})
        new = {"loss": np.zeros(5, np.float32), "new": np.zeros(5, np.float32)}
        _, found, _ = checkpoints.restore(params, training | {"history": new})
    assert_same(found["history"], history)


def test_checkpoints_of_schema_1_are_read(tmp_path):
    params, training = make_items()
    config = make_config("mlp", "digits", hidden_sizes=(8,), seed=3)
    with Checkpoints(tmp_path, config.identity()) as checkpoints:
        checkpoints.save(7, params, training, EPOCHS)
        path = tmp_path / "checkpoints/7/record/metadata"
        record = json.loads(path.read_text())
        path.write_text(
            json.dumps(
                {
                    "layout": 2,
                    "run": config.to_dict(),
                    "epochs": record["epochs"],
                    "sha256": record["sha256"],
                }
            )
        )
    with Checkpoints(tmp_path, config.identity(), read_only=True) as checkpoints:
        *trees, epochs = checkpoints.restore(params, training)
    assert_same(tuple(trees), (params, training))
    assert epochs == EPOCHS


def test_checkpoints_of_a_later_schema_are_told(tmp_path):
    params, training = make_items()
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        checkpoints.save(7, params, training)
        path = tmp_path / "checkpoints/7/record/metadata"
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"schema": record["schema"] + 1}))
        with pytest.raises(CheckpointError, match="another version of mnist_jax"):
            checkpoints.restore(params, training)
