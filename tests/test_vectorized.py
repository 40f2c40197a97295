"""Vectorized runs against solo runs of the same configs."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from mnist_jax import member_step, metrics, training_setup, vectorized
from mnist_jax.config import ConfigError, make_config
from mnist_jax.storage.checkpoints import CheckpointError
from mnist_jax.vectorized import VectorizedRuns

SLOW = pytest.mark.slow  # to compile
VARIED = [
    dict(learning_rate=3e-3, dropout=0.3, seed=1),
    dict(learning_rate=1e-3, dropout=0.0, label_smoothing=0.2, seed=2),
    dict(learning_rate=2e-3, dropout=0.5, weight_decay=0.1, seed=1),
]


def make(model, data_dir, **settings):
    return make_config(
        model, "digits", data_dir=str(data_dir), batch_size=96, epochs=3, **settings
    )


@pytest.mark.parametrize(
    "model, num_members, settings",
    [
        # On one device, which trains them together.
        (
            "mlp",
            2,
            dict(
                hidden_sizes=(32,), augment="shift", schedule="onecycle", num_devices=1
            ),
        ),
        pytest.param(
            "mlp",
            3,
            dict(hidden_sizes=(8,), optimizer="sgd", clip_norm=1.0),
            marks=SLOW,
        ),
        pytest.param(
            "gru", 3, dict(units=8, optimizer="adamw", augment="none"), marks=SLOW
        ),
        pytest.param("cnn", 3, dict(augment="none"), marks=SLOW),
    ],
)
def test_each_member_is_its_solo_run(model, num_members, settings, data_dir):
    varied = VARIED[:num_members]
    configs = [make(model, data_dir, **settings, **one) for one in varied]
    runs = VectorizedRuns(configs)
    assert len(runs.trainer.devices) == settings.get("num_devices", num_members)
    scores = runs.train_epoch()
    assert runs.trainer.num_steps >= 10
    for config, params, score in zip(configs, runs.params(), scores, strict=True):
        solo = training_setup.prepare(dataclasses.replace(config, num_devices=1))
        first = solo.trainer.fetch_state().params
        history = solo.trainer.run_epoch(0)
        own = solo.trainer.fetch_state().params
        if model == "cnn":
            # Rounding may decide which of four values is the largest, and so move a
            # gradient as a whole: not each param is as near, but all of them are.
            error, update = (
                optax.global_norm(jax.tree.map(np.subtract, own, other))
                for other in (params, first)
            )
            assert error <= 1e-3 * update
        else:
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
                params,
                own,
            )
        for name, values in history.items():
            # A label of the cnn may change with it, too: one in 1,248 images.
            rtol = 5e-3 if model == "cnn" else 1e-5
            np.testing.assert_allclose(score[f"train_{name}"], values.mean(), rtol)
        dataset, indices = solo.dataset, solo.validation_indices
        logits = solo.predict(solo.trainer.state.params, dataset.train_images[indices])
        expected = metrics.score(logits, dataset.train_labels[indices])
        assert score["validation_accuracy"] == pytest.approx(
            expected["accuracy"], abs=0.01
        )
        assert score["validation_loss"] == pytest.approx(expected["loss"], rel=1e-4)


@pytest.fixture(scope="module")
def three(data_dir, tmp_path_factory):
    """(runs, folder, params, scores) of three members; not to be trained further.

    The folder that they were saved in after one of their two epochs, their params then,
    and what `train_epoch` gave of the second one.
    """
    rates, folder = (1e-3, 2e-3, 3e-3), tmp_path_factory.mktemp("three")
    runs = VectorizedRuns([make("linear", data_dir, learning_rate=x) for x in rates])
    runs.train_epoch()
    runs.save(folder, ["three"])
    params = runs.params()
    return runs, folder, params, runs.train_epoch()


def test_members_go_on_from_where_they_were_saved(three):
    whole, folder, saved, expected = three
    later = VectorizedRuns([whole.configs[2], whole.configs[0]])
    later.restore(folder, ["three"], 1, members=[2, 0], of=3)
    for i, params in zip((2, 0), later.params(), strict=True):
        jax.tree.map(np.testing.assert_array_equal, params, saved[i])
    got = later.train_epoch()
    for i, j in ((2, 0), (0, 1)):
        assert got[j] == pytest.approx(expected[i], rel=1e-5)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
            later.params()[j],
            whole.params()[i],
        )
    probabilities = later.test_probabilities()
    assert probabilities.shape == (2, len(later.dataset.test_labels), 10)
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    "identity, epoch, expected",
    [
        (["others"], 1, "of another run"),
        (["three"], 2, "holds no checkpoint"),
    ],
)
def test_only_the_checkpoint_that_is_asked_for_is_restored(
    three, identity, epoch, expected
):
    runs, folder, *_ = three
    with pytest.raises(CheckpointError, match=expected) as caught:
        runs.restore(folder, identity, epoch, [0, 1, 2], 3)
    assert "\n" not in str(caught.value)


def test_what_is_no_number_cannot_differ(data_dir):
    configs = [make("linear", data_dir), make("linear", data_dir, optimizer="sgd")]
    with pytest.raises(ConfigError, match="differ in optimizer: .*learning_rate"):
        VectorizedRuns(configs)


def test_data_of_one_folder_are_not_those_of_another(data_dir, tmp_path):
    configs = [make("linear", data_dir), make("linear", tmp_path)]
    with pytest.raises(ConfigError, match="differ in data_dir"):
        VectorizedRuns(configs)


def test_images_on_the_host_are_not_trained_on_together(data_dir):
    configs = [make("linear", data_dir, data_placement="host")] * 2
    with pytest.raises(ConfigError, match="--data_placement=host: vectorized runs"):
        VectorizedRuns(configs)


def test_folds_of_unequal_size_are_not_trained_together(data_dir):
    part = dict(validation_fraction=1 / 3)
    configs = [make("linear", data_dir, validation_fold=i, **part) for i in (0, 2)]
    with pytest.raises(ConfigError, match="--validation_fold: .*--validation_by=block"):
        VectorizedRuns(configs)
    blocks = [dataclasses.replace(x, validation_by="block") for x in configs]
    assert len(VectorizedRuns(blocks)) == 2


def test_swept_values_are_those_that_differ(data_dir):
    values = vectorized.swept_values([make("mlp", data_dir, **x) for x in VARIED])
    assert set(values) == set(member_step.SWEPT_SETTINGS)
    assert values["seed"].dtype == np.uint32 and values["seed"].tolist() == [1, 2, 1]
    assert values["dropout"].dtype == np.float32
    same = vectorized.swept_values([make("mlp", data_dir)] * 2)
    assert {name: x.tolist() for name, x in same.items()} == {"seed": [0, 0]}
