"""The study of the frontier and its presets."""

import json
from typing import NamedTuple

import numpy as np
import pytest
from small_data import small_files, write_files

from experiments.accuracy.frontier_parts import ensembles, families
from experiments.accuracy.frontier_parts.rows import predict_views
from experiments.common import runs
from mnist_jax import models, presets
from mnist_jax.config import ConfigError, make_config
from mnist_jax.storage import records
from mnist_jax.training import train_and_evaluate


def test_families_are_models_with_a_best_preset():
    keys = [family.key for family in families.FAMILIES]
    assert len(set(keys)) == len(keys)
    for family in families.FAMILIES:
        assert family.model in models.MODELS
        assert family.model in presets.BEST_PRESETS
        assert family.teacher in (None, *keys)
    for group in ensembles.OVER_FAMILIES.values():
        assert set(group or ()) <= set(models.MODELS)
    assert len(set(families.SUSPECTED_LABELS)) == 15


def test_best_presets_train_on_all_images():
    for model in presets.BEST_PRESETS:
        best = make_config(model, "mnist", "best")
        assert best.validation_fraction == 0
        assert best.epochs >= make_config(model, "mnist").epochs
        assert make_config(model, "mnist", "best", epochs=3).epochs == 3
    with pytest.raises(ConfigError, match="--preset=best: mlp has no .*60,000 images"):
        make_config("mlp", "digits", "best")


@pytest.mark.parametrize("dataset", ["fashion_mnist", "kmnist"])
def test_best_presets_run_on_other_raw_files(dataset, tmp_path):
    raw = write_files(tmp_path / "raw", small_files())
    config = make_config(
        "linear", dataset, "best", epochs=1, raw_dir=str(raw), batch_size=100,
        data_dir=str(tmp_path / "data"),
    )  # fmt: skip
    result = train_and_evaluate(config, tmp_path / "run")
    assert result["num_train_images"] == 300 and result["num_test_images"] == 120


@pytest.mark.slow
def test_the_frontier_of_some_families(tmp_path, run_study):
    arguments = ("--dataset=digits", "--preset=quick", "--seeds=0,1")
    arguments += ("--models=linear,mlp,mlp-distilled,cnn",)
    output, errors = run_study("accuracy.frontier", *arguments, cwd=tmp_path)
    folder = tmp_path / "runs" / "frontier-digits"
    content = json.loads((folder / "frontier.json").read_text())
    rows = {row["model"]: row for row in content["rows"]}
    assert rows.keys() == {"linear", "mlp", "mlp-distilled", "cnn"}
    taught = records.read_config(folder / "mlp-distilled-1")
    assert taught.settings["teacher"] == f"{folder}/cnn-1"
    for model, row in rows.items():
        results = [records.read_result(folder / f"{model}-{seed}") for seed in (0, 1)]
        accuracies = [result["test_accuracy"] for result in results]
        assert row["test_accuracies"] == accuracies
        assert row["test_accuracy"] == pytest.approx(np.mean(accuracies))
        error = np.std(accuracies, ddof=1) / np.sqrt(2)
        assert row["standard_error"] == pytest.approx(100 * error)
        assert row["views_accuracy"] == pytest.approx(np.mean(row["views_accuracies"]))
    assert rows["linear"]["macs"] == 7840
    assert rows["linear"]["training_macs"] == 3 * 7840 * rows["linear"]["epochs"] * 1260
    mlp, taught, cnn = (rows[name] for name in ("mlp", "mlp-distilled", "cnn"))
    of_teacher = cnn["macs"] * mlp["epochs"] * 1260
    assert taught["training_macs"] == mlp["training_macs"] + of_teacher
    groups = {row["ensemble"]: row for row in content["ensembles"]}
    assert groups["all families"]["num_members"] == 8
    own = [records.read_predictions(folder / f"mlp-{seed}") for seed in (0, 1)]
    mean = np.mean([x.probabilities for x in own], axis=0).argmax(-1)
    together = groups["mlp, its seeds"]["test_accuracy"]
    assert together == pytest.approx((mean == own[0].labels).mean())
    again, errors = run_study("accuracy.frontier", *arguments, cwd=tmp_path)
    assert again == output and "epoch" not in errors


class _Run(NamedTuple):
    predictions: records.Predictions


def test_a_combination_is_averaged_only_where_all_its_models_are():
    empty = [None] * (len(records.Predictions._fields) - 2)
    own = records.Predictions(np.eye(3), np.arange(3), *empty)
    found = ensembles.summarize({m: [_Run(own)] for m in ("cnn", "mlp")}, own.labels)
    assert [row["ensemble"] for row in found] == ["all families"]
    found = ensembles.summarize({m: [_Run(own)] for m in ("cnn", "lenet5")}, own.labels)
    assert [row["ensemble"] for row in found] == ["convolutional", "all families"]


def test_the_frontier_of_one_family_is_not_trained_twice(tmp_path, run_study):
    arguments = ("--dataset=digits", "--preset=quick", "--seeds=0", "--models=linear")
    output, errors = run_study("accuracy.frontier", *arguments, cwd=tmp_path)
    assert "linear" in output and "epoch 20/20" in errors
    folder = tmp_path / "runs" / "frontier-digits"
    for name in ("frontier.png", "wrong_images.png", "frontier.md", "report.html"):
        assert (folder / name).stat().st_size > 0
    again, errors = run_study("accuracy.frontier", *arguments, cwd=tmp_path)
    assert again == output and "epoch" not in errors


@pytest.mark.slow
def test_the_whole_frontier_on_digits(tmp_path, run_study):
    arguments = ("--dataset=digits", "--preset=quick", "--seeds=0")
    run_study("accuracy.frontier", *arguments, cwd=tmp_path)
    content = json.loads(
        (tmp_path / "runs" / "frontier-digits" / "frontier.json").read_text()
    )
    assert len(content["rows"]) == len(families.FAMILIES)


def run_with(workdir, probabilities):
    predictions = records.Predictions(np.float32(probabilities), *[np.zeros(1)] * 5)
    return runs.Run(None, workdir, {}, [], predictions)


def test_damaged_views_are_told(tmp_path):
    (tmp_path / "views.npz").write_bytes(b"no views")
    run = run_with(tmp_path, [[0.5, 0.5]])
    with pytest.raises(records.RecordsError, match="views.npz is damaged.*delete the"):
        predict_views(run, np.zeros((1, 28, 28, 1), np.uint8))


def test_arrays_are_kept_until_another_run_has_the_folder(tmp_path):
    computed = []

    def compute():
        computed.append(None)
        return {"count": np.array(len(computed))}

    def kept(probabilities):
        run = run_with(tmp_path, probabilities)
        arrays = runs.kept_arrays(run, "kept.npz", compute)
        assert arrays.keys() == {"count"}
        return arrays["count"]

    assert [kept([[0.5, 0.5]]), kept([[0.5, 0.5]])] == [1, 1]
    assert [kept([[0.4, 0.6]]), kept([[0.4, 0.6]])] == [2, 2]
