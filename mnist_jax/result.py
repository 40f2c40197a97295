"""The end of a run: the test set scored once, and what the figures need."""

import importlib.metadata
import math
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

import mnist_jax
from mnist_jax import evaluation, metrics
from mnist_jax.divergence import check_score
from mnist_jax.parallel import devices
from mnist_jax.plots import select_examples
from mnist_jax.storage import records
from mnist_jax.training_setup import Setup

_NUM_SAMPLES = 40  # training images kept to be shown


def conclude(
    setup: Setup,
    workdir: Path,
    params: Any,
    compile_seconds: float,
    train_seconds: float,
) -> dict[str, Any]:
    """Scores the test set and writes predictions.npz and result.json.

    A result.json that is there is kept, and a score that differs from its own is told:
    the run was complete, and made again what it had lost.
    """
    dataset, config = setup.dataset, setup.config
    logits = setup.predict(params, dataset.test_images)
    scores = metrics.score(logits, dataset.test_labels)
    check_score(scores["loss"], "test", config)
    num_classes = len(dataset.class_names)
    matrix = evaluation.confusion_matrix(
        logits.argmax(-1), dataset.test_labels, num_classes
    )
    probabilities = evaluation.softmax(logits)
    shown = select_examples(probabilities, dataset.test_labels)
    rng = np.random.default_rng(config.seed)
    samples = rng.permutation(len(dataset.train_labels))[:_NUM_SAMPLES]
    records.write_predictions(
        workdir,
        records.Predictions(
            probabilities=probabilities,
            labels=dataset.test_labels,
            shown=shown,
            shown_images=dataset.test_images[shown, ..., 0],
            sample_images=dataset.train_images[samples, ..., 0],
            sample_labels=dataset.train_labels[samples],
        ),
    )
    result = {
        "model": config.model,
        "dataset": dataset.name,
        "provenance": dataset.provenance,
        "class_names": list(dataset.class_names),
        **{f"test_{name}": value for name, value in scores.items()},
        "per_class_accuracy": evaluation.per_class_accuracy(matrix),
        "confusion_matrix": matrix.tolist(),
        "num_params": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "num_train_images": len(setup.train_indices),
        "num_validation_images": len(setup.validation_indices),
        "num_test_images": len(dataset.test_labels),
        "epochs": config.epochs,
        "compile_seconds": compile_seconds,
        "train_seconds": train_seconds,
        "versions": versions(),
        "device": devices.describe(setup.trainer.devices),
    }
    recorded = records.read_result(workdir)
    if recorded is None:
        records.write_result(workdir, result)
        return result
    _compare(result, recorded, workdir / records.RESULT)
    return recorded


def _compare(result: Mapping, recorded: Mapping, path: Path) -> None:
    """Warns where the test set was scored otherwise than `recorded`."""
    scores = [
        f"{name} is {result[name]:g} now, {recorded[name]:g} there"
        for name in result.keys() & recorded.keys()
        if name.startswith("test_")
        and not math.isclose(result[name], recorded[name], rel_tol=1e-5)
    ]
    if result["confusion_matrix"] != recorded["confusion_matrix"]:
        scores.append("confusion_matrix differs")
    if scores:
        logging.warning(
            "%s is kept, but scoring the test set again differs (%s): other versions "
            "or hardware, or another checkpoint",
            path,
            "; ".join(sorted(scores)),
        )


def versions() -> dict[str, str]:
    """Of what decides the numbers."""
    names = ("jax", "jaxlib", "flax", "optax", "numpy", "tensorflow-datasets")
    found = {name: importlib.metadata.version(name) for name in names}
    return {
        "mnist_jax": mnist_jax.__version__,
        "python": platform.python_version(),
        **found,
    }
