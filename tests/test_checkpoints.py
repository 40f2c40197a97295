import jax
import numpy as np
import optax
import pytest

from mnist_jax import models, parallel, step
from mnist_jax.checkpoints import CheckpointError, Checkpoints


def make_items(seed=0):
    model, optimizer = models.MLP(hidden_sizes=(8,)), optax.adam(1e-3)
    state = step.init_state(model, optimizer, seed)
    training = {
        "step": state.step,
        "opt_state": state.opt_state,
        "seconds": np.float32(1.5),
    }
    return state.params, training


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


EPOCHS = [{"epoch": 1, "train_loss": 0.1 + 0.2, "validation_loss": None}]


def test_what_is_saved_is_restored_bit_for_bit(tmp_path):
    params, training = make_items()
    params["Dense_0"]["bias"] = np.full(8, -0.0, np.float32)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, params, training, EPOCHS)
    blank = jax.tree.map(np.zeros_like, (params, training))
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 3
        *trees, epochs = checkpoints.restore(*blank)
        assert_same(tuple(trees), (params, training))
        assert np.signbit(trees[0]["Dense_0"]["bias"]).all()
        assert epochs == EPOCHS
        assert_same(checkpoints.restore_params(blank[0]), params)


def test_arrays_on_several_devices_are_saved_once(tmp_path):
    params, training = make_items()
    spread = parallel.replicate((params, training), jax.devices())
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, *spread)
        assert_same(checkpoints.restore(params, training)[:2], (params, training))


def test_the_last_two_are_kept(tmp_path):
    items = [make_items(seed) for seed in range(4)]
    with Checkpoints(tmp_path) as checkpoints:
        for i, (params, training) in enumerate(items):
            checkpoints.save(i, params, training)
        assert_same(checkpoints.restore_params(items[0][0]), items[3][0])
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["2", "3"]


def test_saving_the_same_step_again_is_harmless(tmp_path):
    params, training = make_items()
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(5, params, training)
        checkpoints.save(5, params, training)
        assert checkpoints.latest_step() == 5


def test_no_checkpoint_is_told_in_one_line(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() is None
        with pytest.raises(CheckpointError, match="holds no checkpoint"):
            checkpoints.restore_params(make_items()[0])


@pytest.mark.parametrize("content", [b"", b"{", b"\x80\x04garbage"])
def test_a_damaged_checkpoint_is_told_in_one_line(tmp_path, content):
    params, training = make_items()
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, params, training)
    for path in (tmp_path / "checkpoints/7/params").rglob("*"):
        if path.is_file():
            path.write_bytes(content)
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(CheckpointError) as caught:
            checkpoints.restore(params, training)
    assert str(tmp_path / "checkpoints/7") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    params, training = make_items()
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, params, training)
        other = models.Linear().init(jax.random.key(0), np.zeros((1, 28, 28, 1)))
        with pytest.raises(CheckpointError, match="cannot be read"):
            checkpoints.restore_params(other["params"])
