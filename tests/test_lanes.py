"""Lanes against solo runs of the same configs."""

import dataclasses

import jax
import numpy as np
import pytest

from mnist_jax import metrics, parallel
from mnist_jax.config import ConfigError, make_config
from mnist_jax.step import Metrics
from mnist_jax.train.lanes import Lanes
from mnist_jax.train.run import epoch_order, prepare

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


def solo_epoch(config):
    """State and history of one epoch as `train.loop` trains it, on one device."""
    run = prepare(dataclasses.replace(config, num_devices=1))
    data = run.dataset.train_images, run.dataset.train_labels, np.uint32(config.seed)
    history = Metrics(*np.zeros((2, run.num_steps), np.float32))
    state, history, data = parallel.replicate((run.state, history, data), run.devices)
    order = epoch_order(run.train_rows, config.batch_size, config.seed, 0)
    order = parallel.split_order(order, len(run.devices))
    state, history = run.chunk(state, history, *data, order, 0, run.num_steps)
    return run, jax.device_get(state), jax.device_get(history)


@pytest.mark.parametrize(
    "model, settings",
    [
        ("mlp", dict(hidden_sizes=(32,), augment="shift", schedule="onecycle")),
        ("mlp", dict(hidden_sizes=(8,), optimizer="sgd", clip_norm=1.0)),
        pytest.param(
            "gru", dict(units=8, optimizer="adamw", augment="none"), marks=SLOW
        ),
        pytest.param("cnn", dict(augment="none"), marks=SLOW),
    ],
)
def test_each_lane_is_its_solo_run(model, settings, data_dir):
    configs = [make(model, data_dir, **settings, **varied) for varied in VARIED]
    lanes = Lanes(configs)
    scores = lanes.train_epoch()
    assert lanes.num_steps >= 10
    for config, params, score in zip(configs, lanes.params(), scores, strict=True):
        run, state, history = solo_epoch(config)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
            params,
            state.params,
        )
        np.testing.assert_allclose(score["train_loss"], history.loss.mean(), rtol=1e-5)
        images = run.dataset.train_images[run.validation_rows]
        labels = run.dataset.train_labels[run.validation_rows]
        loss, accuracy = metrics.score(run.predict(state.params, images), labels)
        assert score["validation_accuracy"] == pytest.approx(accuracy, abs=0.01)
        assert score["validation_loss"] == pytest.approx(loss, rel=1e-4)


def test_lanes_go_on_from_where_they_were_saved(data_dir, tmp_path):
    configs = [
        make("linear", data_dir, learning_rate=rate) for rate in (1e-3, 2e-3, 3e-3)
    ]
    whole, later = Lanes(configs), Lanes([configs[2], configs[0]])
    whole.train_epoch()
    paths = [tmp_path / f"{i}.npz" for i in range(3)]
    whole.save(paths)
    later.restore([paths[2], paths[0]], 1)
    expected, got = whole.train_epoch(), later.train_epoch()
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


@pytest.mark.parametrize("content", [b"", b"PK", b"nothing of ours"])
def test_a_damaged_state_is_told(content, data_dir, tmp_path):
    lanes = Lanes([make("linear", data_dir)])
    path = tmp_path / "0.npz"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read"):
        lanes.restore([path], 1)


def test_what_is_no_number_cannot_differ(data_dir):
    configs = [make("linear", data_dir), make("linear", data_dir, optimizer="sgd")]
    with pytest.raises(ConfigError, match="differ in optimizer: .*learning_rate"):
        Lanes(configs)
