"""Recurrences trained on images that are read pixel by pixel, 64 and 784 of them."""

import dataclasses

import numpy as np
import pytest
from runs_of_launch import assert_same_run, train_until
from sklearn.datasets import load_digits

from mnist_jax import data, training_setup
from mnist_jax.config import make_config
from mnist_jax.data.digits import enlarge
from mnist_jax.training import train_and_evaluate

NUM_TRAIN, NUM_TEST = 360, 120
_LINEAR = dict(units=6, layers=2, pool=4, dropout=0.1, augment="elastic")
CASES = {
    "lru, 64 pixels": (8, "lru", dict(_LINEAR, sequence="pixels")),
    "mingru, 64 permuted": (8, "mingru", dict(_LINEAR, sequence="permuted")),
    "gru, 64 pixels": (8, "gru", dict(units=8, sequence="pixels", remat_steps=7)),
    "lru, 784 permuted": (28, "lru", dict(_LINEAR, sequence="permuted")),
    "minlstm, 784 pixels": (28, "minlstm", dict(_LINEAR, sequence="pixels")),
    "lstm, 784 pixels": (28, "lstm", dict(units=8, sequence="pixels", remat_steps=28)),
}
_FAST = ("lru, 64 pixels",)  # the others are slow


def some_digits(size: int) -> data.Dataset:
    """Of scikit-learn's digits, which are drawn 8 pixels high; 28 is what runs have."""
    digits = load_digits()
    small = digits.images[: NUM_TRAIN + NUM_TEST].astype(np.uint8)
    images = np.stack([enlarge(x) if size == 28 else x * 15 for x in small])
    images, labels = images[..., np.newaxis], digits.target.astype(np.int32)
    return data.Dataset(
        "digits",
        tuple("0123456789"),
        "scikit-learn",
        f"{size}",
        images[:NUM_TRAIN],
        labels[:NUM_TRAIN],
        images[NUM_TRAIN:],
        labels[NUM_TRAIN : NUM_TRAIN + NUM_TEST],
    )


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=() if name in _FAST else pytest.mark.slow)
        for name in CASES
    ],
)
def finished(request, tmp_path_factory):
    """(config, workdir, result) of an undisturbed run on two devices."""
    size, model, settings = CASES[request.param]
    config = make_config(
        model,
        "digits",
        # Empty, so that no prepared copy of the data set is taken for these images.
        data_dir=str(tmp_path_factory.mktemp("data")),
        epochs=2,
        batch_size=36,
        num_devices=2,
        **settings,
    )
    workdir, dataset = tmp_path_factory.mktemp("finished"), some_digits(size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_setup, "load_data", lambda config: dataset)
        yield config, workdir, train_and_evaluate(config, workdir)


def test_an_interrupted_run_goes_on_to_the_same_bits(finished, tmp_path):
    config, workdir, _ = finished
    train_until(lambda losses, done: done + len(losses) >= 9, config, tmp_path)
    train_and_evaluate(config, tmp_path)
    assert_same_run(tmp_path, workdir)


def test_one_device_does_the_work_of_two(finished, tmp_path):
    config, _, result = finished
    alone = dataclasses.replace(config, num_devices=1)
    found = train_and_evaluate(alone, tmp_path)
    assert result["device"]["num_devices"] == 2 and found["device"]["num_devices"] == 1
    assert found["test_loss"] == pytest.approx(result["test_loss"], abs=1e-4)
