"""What the runs of `compare_models` show: rows, a test and charts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.common import charts, prediction_charts, runs
from experiments.common.runs import Run
from mnist_jax import data, evaluation
from mnist_jax.formats import counted

_WRONG = 40  # images shown

Runs = Mapping[str, Sequence[Run]]  # by model, one for each seed
Means = Mapping[str, np.ndarray]  # by model, see `mean_probabilities`
Rows = Sequence[Mapping[str, Any]]  # of `summarize`


def mean_probabilities(own: Sequence[Run]) -> np.ndarray:
    """Of every test image, over the seeds: float [N, K]."""
    return np.mean([run.predictions.probabilities for run in own], axis=0)


def summarize(all_runs: Runs) -> list[dict[str, Any]]:
    """One row for each model: `runs.summarize`, calibration and classes."""
    rows = []
    for own in all_runs.values():
        predictions = [run.predictions for run in own]
        bins = [evaluation.reliability(x.probabilities, x.labels) for x in predictions]
        classes = [run.result["per_class_accuracy"] for run in own]
        row = {
            **runs.summarize(own),
            "calibration_error": float(np.mean([x.error for x in bins])),
            "per_class_accuracy": np.mean(classes, axis=0).tolist(),
        }
        rows.append(row)
    return rows


def compare_best_two(rows: Rows, all_runs: Runs) -> dict[str, Any]:
    """McNemar's test between the two that validate best, seed by seed."""
    order = sorted(rows, key=lambda row: -row["validation_accuracy"])
    best, second = order[0]["model"], order[1]["model"]
    pairs = [
        {
            "seed": one.config.seed,
            "only_best_correct": int((one.correct & ~other.correct).sum()),
            "only_second_correct": int((~one.correct & other.correct).sum()),
            "p_value": evaluation.mcnemar(one.correct, other.correct),
        }
        for one, other in zip(all_runs[best], all_runs[second], strict=True)
    ]
    return {"best": best, "second": second, "pairs": pairs}


def describe(test: Mapping[str, Any]) -> str:
    """The test in two sentences."""
    best, second = test["best"], test["second"]
    pairs = "; ".join(
        f"seed {x['seed']}: {x['only_best_correct']} to {x['only_second_correct']}, "
        f"p = {x['p_value']:.2g}"
        for x in test["pairs"]
    )
    return (
        f"{best} and {second} have the highest validation accuracy. Test images that "
        f"{best} alone classifies correctly to those that {second} alone does, with "
        f"McNemar's exact test: {pairs}."
    )


def draw(
    dataset: data.Dataset, rows: Rows, all_runs: Runs, means: Means
) -> dict[str, tuple[str, bytes]]:
    """The charts: name -> (caption, PNG)."""
    names, labels = dataset.class_names, dataset.test_labels
    seeds = rows[0]["seeds"]
    on = f"{dataset.name}, {counted(len(seeds), 'seed')}"
    epochs = {m: [run.epochs for run in own] for m, own in all_runs.items()}
    classes = {row["model"]: row["per_class_accuracy"] for row in rows}
    matrices = {
        model: evaluation.confusion_matrix(p.argmax(-1), labels, len(names))
        for model, p in means.items()
    }
    bins = {
        model: evaluation.reliability(own[0].predictions.probabilities, labels)
        for model, own in all_runs.items()
    }
    return {
        "results": ("Test error of each model.", charts.results(rows, on)),
        "curves": (
            "Learning curves: mean over seeds, band from lowest to highest.",
            charts.curves(epochs, on),
        ),
        "pareto": (
            "Test error against parameters and training time; the line joins the "
            "models that no other beats in both.",
            charts.pareto(rows, on),
        ),
        "per_class": (
            "Accuracy on each class, mean over seeds.",
            prediction_charts.per_class(classes, names, on),
        ),
        "confusion": (
            "Mistakes of the mean probabilities over seeds.",
            prediction_charts.confusions(matrices, names, on),
        ),
        "reliability": (
            "Calibration of the first seed's run.",
            prediction_charts.reliability(bins, f"{dataset.name}, seed {seeds[0]}"),
        ),
        "wrong_images": (
            "Images that every model classifies wrongly.",
            _draw_wrong_images(dataset, means, on),
        ),
    }


def _draw_wrong_images(dataset: data.Dataset, means: Means, on: str) -> bytes:
    labels = dataset.test_labels
    predicted = np.array([p.argmax(-1) for p in means.values()])
    wrong = np.flatnonzero((predicted != labels).all(0))
    # Those first of which the models are surest.
    confidence = np.mean([p[wrong].max(-1) for p in means.values()], axis=0)
    shown = wrong[np.argsort(-confidence, kind="stable")][:_WRONG]
    which = f"{len(shown)} of " if len(shown) < len(wrong) else ""
    return prediction_charts.wrong_images(
        dataset.test_images[shown, ..., 0],
        labels[shown],
        predicted[:, shown],
        dataset.class_names,
        f"{which}{len(wrong)} test images that all models classify wrongly: {on}",
    )
