"""Recipes selected by cross-validation."""

import dataclasses
import json

import numpy as np
import pytest

from experiments.accuracy import select_recipe
from experiments.accuracy.selection import candidates, folds
from experiments.accuracy.selection.folds import HeldOut
from mnist_jax import batching, data
from mnist_jax.config import ConfigError, make_config
from mnist_jax.data import idx
from mnist_jax.storage import records
from mnist_jax.vectorized import VectorizedRuns

RNG = np.random.default_rng(0)


def test_folds_share_out_all_images_class_by_class():
    labels = RNG.choice(4, 103, p=(0.1, 0.2, 0.3, 0.4))
    parts = [data.split_fold(labels, 5, fold) for fold in range(5)]
    held_out = np.concatenate([held for _, held in parts])
    assert sorted(held_out) == list(range(103))
    for train, held in parts:
        assert sorted([*train, *held]) == list(range(103))
        counts = [np.bincount(labels[x], minlength=4) for x in (held, train)]
        assert np.all(np.abs(counts[0] - (counts[0] + counts[1]) / 5) <= 1)


def test_folds_of_blocks_share_out_neighbours():
    parts = [data.split_blocks(605, 5, fold) for fold in range(5)]
    held_out = np.concatenate([held for _, held in parts])
    assert sorted(held_out) == list(range(600))
    for fold, (train, held) in enumerate(parts):
        assert sorted([*train, *held]) == list(range(605))
        starts = held[::20]
        np.testing.assert_array_equal(starts, 20 * (fold + 5 * np.arange(6)))
        blocks = held.reshape(6, 20) - starts[:, None]
        np.testing.assert_array_equal(blocks, np.tile(np.arange(20), (6, 1)))


def test_members_may_hold_out_any_folds_of_blocks():
    size = 1400 // 18 * 6  # of 1,400 images in three folds of six blocks
    config = make_config(
        "linear", "digits", validation_fraction=1 / 3, validation_by="block"
    )
    members = [dataclasses.replace(config, validation_fold=i) for i in range(3)]
    indices, _ = VectorizedRuns(members).validation()
    assert indices.shape == (3, size) and len(np.unique(indices)) == 3 * size


def test_neighbours_in_mnist_are_alike(mnist_raw_dir):
    """As those of the same writer are, and only them."""
    paths = idx.require(mnist_raw_dir)
    images = idx.read_array(paths["train_images"], 3).reshape(-1, 784)
    labels = idx.read_array(paths["train_labels"], 1)
    x = images[labels == 4].astype(np.float32) / 255
    squares = (x * x).sum(1)
    distances = squares[:, None] + squares - 2 * x @ x.T
    np.fill_diagonal(distances, np.inf)
    gaps = np.abs(distances.argmin(1) - np.arange(len(x)))
    # About ten images of a class are one writer's. By chance a gap is up to k for a
    # share of 2 k / N of the images.
    assert (gaps <= 5).sum() > 10 * 2 * 5
    further = ((gaps > 50) & (gaps <= 100)).sum()
    assert further < 2 * 2 * 50


def test_blocks_are_told_to_need_a_fold():
    config = make_config("mlp", "digits", validation_by="block")
    with pytest.raises(ConfigError, match="--validation_by=block: .*--validation_fold"):
        batching.split(np.zeros(100, int), config)


def test_a_fold_is_the_same_for_all_seeds():
    labels = RNG.integers(0, 10, 500)
    settings = dict(validation_fraction=0.2, validation_fold=3)
    one, two = (
        batching.split(labels, make_config("mlp", "digits", seed=seed, **settings))
        for seed in (1, 2)
    )
    np.testing.assert_array_equal(one[1], two[1])
    assert len(one[1]) == 100
    by_seed = make_config("mlp", "digits", validation_fraction=0.2)
    drawn = batching.split(labels, by_seed)
    assert not np.array_equal(one[1], drawn[1])


@pytest.mark.parametrize("fraction, fold", [(0.2, 5), (0.3, 0), (0.0, 0)])
def test_a_fold_that_is_not_there_is_told(fraction, fold):
    config = make_config(
        "mlp", "digits", validation_fraction=fraction, validation_fold=fold
    )
    with pytest.raises(ConfigError, match=f"--validation_fold={fold}: --validation_fr"):
        batching.split(np.zeros(100, int), config)


def test_candidates_are_settings():
    text = "augment=elastic hidden_sizes=64-32 layer_norm=true learning_rate=0.002"
    own = candidates.parse(text)
    assert own["hidden_sizes"] == (64, 32) and own["layer_norm"] is True
    assert candidates.name(own) == text
    assert candidates.parse(candidates.name(own)) == own
    assert candidates.name(candidates.parse("")) == "as the preset"
    for wrong in ("augment", "augment=none seed=3", "nothing=1", "validation_fold=1"):
        with pytest.raises(ConfigError, match="expected pairs like augment=elastic"):
            candidates.parse(wrong)
    with pytest.raises(ConfigError, match="--augment=bent: expected one of"):
        candidates.parse("augment=bent")


def test_rows_compare_the_same_images():
    labels = RNG.integers(0, 3, 50)
    right = np.eye(3, dtype=np.float32)[labels]

    def held_out(indices, wrong):
        probabilities = right[indices].copy()
        probabilities[wrong] = np.roll(probabilities[wrong], 1, -1)
        return HeldOut(np.array(indices), probabilities, 60.0 * len(indices) / 10)

    results = {
        "dropped": held_out(range(20), []),
        "worse": held_out(range(40), [0, 1, 2, 3, 25]),
        "best": held_out(range(39, -1, -1), [39 - 3, 39 - 30]),
    }
    rows = select_recipe.compare(results, labels)
    assert [row["candidate"] for row in rows] == ["best", "worse", "dropped"]
    best, worse, dropped = rows
    assert (best["accuracy"], best["num_wrong"], best["num_folds"]) == (38 / 40, 2, 4)
    assert (best["difference"], best["difference_error"]) == (0, 0)
    # They differ in images 0, 1, 2 and 25, and in 30 the other way round.
    assert (worse["only_best_correct"], worse["only_this_correct"]) == (4, 1)
    gap = np.array([-1] * 4 + [1] + [0] * 35)
    assert worse["difference"] == pytest.approx(100 * gap.mean())
    assert worse["difference_error"] == pytest.approx(100 * gap.std() / np.sqrt(40))
    # A wrong image has a probability of 0, which counts as 1e-12.
    worst = -np.log(1e-12)
    assert best["loss"] == pytest.approx(2 * worst / 40)
    assert worse["loss_difference"] == pytest.approx(-worst * gap.mean())
    assert worse["loss_difference_error"] == pytest.approx(
        worst * gap.std() / np.sqrt(40)
    )
    # The first 20 images alone.
    assert dropped["num_folds"] == 2 and dropped["difference"] == pytest.approx(5)
    assert best["minutes"] == pytest.approx(1)


def test_folds_are_trained_once_and_go_on(tmp_path, monkeypatch):
    config = make_config("linear", "digits", epochs=2, validation_fraction=0.2)
    whole = folds.train(config, [0, 1], tmp_path / "whole")
    labels = select_recipe.training_setup.load_data(config).train_labels
    assert len(whole.indices) == round(0.4 * len(labels))
    correct = whole.correct(labels)
    assert np.isnan(correct).sum() == len(labels) - len(whole.indices)
    assert 0.5 < np.nanmean(correct) <= 1

    def stop(runs, *args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(folds.HeldOut, "__new__", stop)
        with pytest.raises(KeyboardInterrupt):
            folds.train(config, [0, 1], tmp_path / "stopped")
    again = folds.train(config, [0, 1], tmp_path / "stopped")
    np.testing.assert_array_equal(again.probabilities, whole.probabilities)
    with monkeypatch.context() as patch:
        patch.setattr("mnist_jax.vectorized.VectorizedRuns.__init__", stop)
        assert folds.train(config, [0, 1], tmp_path / "whole").seconds == whole.seconds
    (tmp_path / "whole" / "held_out.npz").write_bytes(b"damaged")
    with pytest.raises(records.RecordsError, match="held_out.npz is damaged.*delete "):
        folds.train(config, [0, 1], tmp_path / "whole")


def test_the_worse_half_is_dropped(tmp_path, run_study):
    tried = [f"--candidate=learning_rate={rate}" for rate in ("1e-6", "1e-2", "1e-3")]
    arguments = ("--model=linear", "--dataset=digits", "--epochs=2", "--folds=1,2")
    output, _ = run_study("accuracy.select_recipe", *arguments, *tried, cwd=tmp_path)
    folder = tmp_path / "runs" / "selection-digits-linear"
    content = json.loads((folder / "selection.json").read_text())
    assert [row["num_folds"] for row in content["rows"]] == [2, 2, 1]
    assert content["rows"][0]["candidate"] == "learning_rate=0.01"
    assert content["rows"][-1]["candidate"] == "learning_rate=1e-06"
    for name in ("selection.json", "selection.md"):
        text = (folder / name).read_text().replace("pytest", "")
        assert "test" not in text, "the test set has no part in it"
    again, errors = run_study(
        "accuracy.select_recipe", *arguments, *tried, cwd=tmp_path
    )
    assert again == output
