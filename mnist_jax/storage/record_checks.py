"""What the values of a run's records must be, so that every reader can rely on them.

Each function raises ValueError, whose message names the field.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mnist_jax import evaluation
from mnist_jax.settings import is_number, is_whole

# float32 logits give no loss beyond; sums in float32 may round past 0 or 1.
_MOST, _ROUNDING = 1e39, 1e-5
# By metric; others may also be below 0, infinite or NaN.
_RANGES = {"loss": (0, _MOST), "accuracy": (0, 1)}
_PARTS = ("train", "validation", "test")


def check_epochs(
    epochs: Sequence[Mapping[str, Any]], result: Mapping[str, Any] | None
) -> None:
    """Checks the lines of metrics.jsonl, each of which has 'epoch' and 'train_loss'.

    Args:
      epochs: the lines; values may be None where a metric was not known yet, and those
        of the validation part where there is none.
      result: of the run, if it is complete: there is a line for each of its epochs.
    """
    for number, epoch in enumerate(epochs, 1):
        for name, value in epoch.items():
            if value is not None and not is_number(value):
                raise ValueError(
                    f"line {number} has more than numbers: {name} is {value!r}"
                )
            if value is not None:
                _check_metric(f"line {number}: ", name, value)
        if epoch["epoch"] != number:
            raise ValueError(f"line {number} is that of epoch {epoch['epoch']}")
    result = result or {}
    expected = ["train_loss"]
    validated = any(epoch.get("validation_loss") is not None for epoch in epochs)
    if result.get("num_validation_images", validated):
        expected += ["validation_loss", "validation_accuracy"]
    for number, epoch in enumerate(epochs, 1):
        for name in expected:
            if epoch.get(name) is None:
                raise ValueError(f"line {number}: {name} is null or missing")
    if len(epochs) != result.get("epochs", len(epochs)):
        raise ValueError(
            f"{len(epochs)} of the {result['epochs']} epochs of result.json"
        )


def check_result(result: Mapping[str, Any]) -> None:
    """Checks a result.json that has all of `records.RESULT_KEYS`."""
    for name, value in result.items():
        _check_metric("", name, value)
    for name in ("train_seconds", "compile_seconds"):
        _check_range(name, result[name], 0, _MOST)
    for name in ("epochs", "num_params", "num_test_images", "num_validation_images"):
        if not _is_count(result.get(name, 0)):
            raise ValueError(f"{name} is {result[name]!r}, expected a whole number")
    names, matrix = result["class_names"], result["confusion_matrix"]
    if not (_is_list(names) and names and all(isinstance(x, str) for x in names)):
        raise ValueError("class_names is no list of texts")
    size = len(names)
    if not (
        _is_list(matrix, size)
        and all(_is_list(row, size) and all(map(_is_count, row)) for row in matrix)
    ):
        raise ValueError(
            f"confusion_matrix is not {size}x{size} whole numbers, as class_names has "
            f"{size} names"
        )
    if not 0 < sum(map(sum, matrix)) < 2**53:
        raise ValueError("confusion_matrix counts no images, or more than there can be")
    shares = result["per_class_accuracy"]
    if not _is_list(shares, size):
        raise ValueError(f"per_class_accuracy is no list of {size} numbers")
    for share in shares:
        if share is not None:  # a class without test images
            _check_range("per_class_accuracy", share, 0, 1)


def check_predictions(predictions: Any, result: Mapping[str, Any] | None) -> None:
    """Checks a `records.Predictions`.

    Args:
      predictions: the arrays.
      result: of the same run, if it is known: its confusion matrix is that of the
        predictions.
    """
    found = predictions._asdict()
    probabilities = predictions.probabilities
    if probabilities.ndim != 2 or probabilities.dtype.kind != "f":
        _refuse("probabilities", probabilities, "float32 [N, C]")
    num_images, num_classes = probabilities.shape
    for name in ("labels", "shown", "sample_labels"):
        if found[name].ndim != 1 or found[name].dtype.kind not in "iu":
            _refuse(name, found[name], "int32 [N]")
    for name, like in (("shown_images", "shown"), ("sample_images", "sample_labels")):
        images, num = found[name], len(found[like])
        if images.ndim != 3 or images.dtype != np.uint8 or len(images) != num:
            _refuse(name, images, f"uint8 [{num}, H, W], as many as {like}")
    if len(predictions.labels) != num_images:
        _refuse("labels", predictions.labels, f"one for each of {num_images} images")
    for name, array in found.items():
        if not array.size:
            _refuse(name, array, "one or more")
    for name, high in (
        ("probabilities", 1 + _ROUNDING),
        ("labels", num_classes - 1),
        ("shown", num_images - 1),
        ("sample_labels", num_classes - 1),
    ):
        if not ((found[name] >= 0) & (found[name] <= high)).all():
            raise ValueError(f"{name} has values that are not from 0 to {round(high)}")
    if result is not None:
        _check_same_run(predictions, np.array(result["confusion_matrix"]))


def _check_same_run(predictions: Any, matrix: np.ndarray) -> None:
    num_images, num_classes = predictions.probabilities.shape
    if (num_images, num_classes) != (matrix.sum(), len(matrix)):
        raise ValueError(
            f"probabilities are of {num_images} images and {num_classes} classes, "
            f"those of result.json of {matrix.sum()} and {len(matrix)}"
        )
    predicted = predictions.probabilities.argmax(-1)
    own = evaluation.confusion_matrix(predicted, predictions.labels, num_classes)
    # Other hardware or versions may classify one image in a thousand differently.
    if np.abs(own - matrix).sum() / 2 > 1 + num_images / 1000:
        raise ValueError(
            "probabilities and labels do not give the confusion_matrix of result.json"
        )


def _check_metric(where: str, name: str, value: Any) -> None:
    part, _, metric = name.partition("_")
    if part not in _PARTS:
        return
    if metric in _RANGES:
        _check_range(where + name, value, *_RANGES[metric])
    elif is_number(value) and value == value and abs(value) != math.inf:
        _check_range(where + name, value, -_MOST, _MOST)


def _check_range(name: str, value: Any, low: float, high: float) -> None:
    if not (is_number(value) and low - _ROUNDING <= value <= high + _ROUNDING):
        raise ValueError(
            f"{name} is {value!r}, expected a number from {low:g} to {high:g}"
        )


def _is_count(value: Any) -> bool:
    return is_whole(value) and value >= 0


def _is_list(value: Any, size: int | None = None) -> bool:
    return isinstance(value, list) and size in (None, len(value))


def _refuse(name: str, array: np.ndarray, expected: str) -> None:
    raise ValueError(f"{name} is {array.dtype} {[*array.shape]}, expected {expected}")
