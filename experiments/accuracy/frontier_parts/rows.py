"""What the runs of one family show: a row of the table."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.accuracy.frontier_parts.families import Family
from experiments.common import runs
from mnist_jax import (
    data,
    evaluation,
    flops,
    predict,
    teacher,
    train_step,
    training_setup,
)
from mnist_jax.config import Config

NUM_VIEWS = 9
_VIEWS = "views.npz"
_BACKWARD = 2  # times the arithmetic of the forward pass


def predict_views(run: runs.Run, images: np.ndarray) -> np.ndarray:
    """Mean probabilities over `NUM_VIEWS` of each test image, kept in the run's folder.

    Args:
      run: finished.
      images: uint8 [N, H, W, 1].

    Returns:
      float32 [N, K].
    """

    def compute():
        classifier = predict.load_classifier(run.workdir, eval_views=NUM_VIEWS)
        return {"probabilities": evaluation.softmax(classifier.classify(images))}

    return runs.kept_arrays(run, _VIEWS, compute)["probabilities"]


def summarize(
    family: Family, own: Sequence[runs.Run], dataset: data.Dataset
) -> dict[str, Any]:
    """The row of one family's runs, which differ by seed alone."""
    row, config = runs.summarize(own) | {"model": family.key}, own[0].config
    macs = _count_macs(config, dataset)
    # Teachers see each image, too, but learn nothing.
    teachers = sum(_count_macs(x.config, dataset) for x in teacher.load(config))
    predicted = [predict_views(x, dataset.test_images).argmax(-1) for x in own]
    views = [float((classes == dataset.test_labels).mean()) for classes in predicted]
    of_mnist = dataset.name == "mnist"
    images = own[0].result["num_train_images"] * config.epochs
    return {
        **row,
        "family": family.name,
        "macs": macs,
        "training_macs": images * (macs * (1 + _BACKWARD) + teachers),
        "minutes": row["train_seconds"] / 60,
        "num_seeds": len(own),
        "standard_error": row["std"] and 100 * row["std"] / math.sqrt(len(own)),
        "views_accuracy": float(np.mean(views)),
        "views_accuracies": views,
        "honest": family.honest.accuracy if of_mnist and family.honest else None,
        "headline": family.headline.accuracy if of_mnist and family.headline else None,
        "sources": [x and x.source for x in (family.honest, family.headline)],
        "precision": config.precision,
        "teacher": config.teacher,
    }


def _count_macs(config: Config, dataset: data.Dataset) -> int:
    """Multiply-accumulates of the model for one image, forward."""
    shape = dataset.train_images.shape[1:]
    # In bfloat16 a recurrence pads its inputs, which is no part of the model.
    wide = dataclasses.replace(config, precision="float32")
    model = training_setup.build_model(wide, shape, len(dataset.class_names))
    params = train_step.init_params_shapes(model, shape)
    return flops.of_model(model, params, shape).macs
