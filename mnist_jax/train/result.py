"""The end of a run: the test set scored once, and what the figures need."""

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import jax
import numpy as np

import mnist_jax
from mnist_jax import metrics, parallel, records
from mnist_jax.plots import choose_shown
from mnist_jax.train.loop import Clock
from mnist_jax.train.run import Run

_NUM_SAMPLES = 40  # training images kept to be shown


def conclude(run: Run, workdir: Path, params: Any, clock: Clock) -> dict[str, Any]:
    """Scores the test set and writes predictions.npz and result.json."""
    dataset, config = run.dataset, run.config
    logits = run.predict(params, dataset.test_images)
    loss, accuracy = metrics.score(logits, dataset.test_labels)
    num_classes = len(dataset.class_names)
    matrix = metrics.confusion_matrix(
        logits.argmax(-1), dataset.test_labels, num_classes
    )
    probabilities = metrics.softmax(logits)
    shown = choose_shown(probabilities, dataset.test_labels)
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
        "test_accuracy": accuracy,
        "test_loss": loss,
        "per_class_accuracy": metrics.per_class_accuracy(matrix),
        "confusion_matrix": matrix.tolist(),
        "num_params": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "num_train_images": len(run.train_rows),
        "num_validation_images": len(run.validation_rows),
        "num_test_images": len(dataset.test_labels),
        "epochs": config.epochs,
        "compile_seconds": clock.compile,
        "train_seconds": clock.train,
        "versions": _versions(),
        "device": parallel.describe(run.devices),
    }
    records.write_result(workdir, result)
    return result


def _versions() -> dict[str, str]:
    names = ("jax", "jaxlib", "flax", "optax", "numpy", "tensorflow-datasets")
    found = {name: importlib.metadata.version(name) for name in names}
    return {
        "mnist_jax": mnist_jax.__version__,
        "python": platform.python_version(),
        **found,
    }
