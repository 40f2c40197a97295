"""A run's files: written and read here and nowhere else.

A run lives in one folder, its workdir:

    config.json       every setting of the run
    metrics.jsonl     one line per finished epoch
    result.json       the test score and what it cost; written once, at the end
    predictions.npz   the test probabilities, and the images that the figures show
    checkpoints/      see checkpoints.py
    figures/          see plots/
    tensorboard/      see tensorboard.py
    damaged/          checkpoints that could not be read
    .lock             held by the process that trains the run

Every file is written beside its final name and then renamed, so that a reader, or
a run that goes on after a crash, never meets half a file.
"""

import io
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

CONFIG = "config.json"
METRICS = "metrics.jsonl"
RESULT = "result.json"
PREDICTIONS = "predictions.npz"
CHECKPOINTS = "checkpoints"
FIGURES = "figures"
TENSORBOARD = "tensorboard"
DAMAGED = "damaged"
LOCK = ".lock"

RESULT_KEYS = (
    "dataset",
    "class_names",
    "test_accuracy",
    "test_loss",
    "confusion_matrix",
    "num_test_images",
    "epochs",
    "train_seconds",
    "compile_seconds",
)

_LONGEST_QUOTE = 160  # characters
# RecursionError: brackets in brackets in brackets.
_READ_ERRORS = (OSError, ValueError, RecursionError)

EPOCH_KEYS = (
    "epoch",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "learning_rate",
    "seconds",
    "images_per_second",
)


class RecordsError(Exception):
    """A workdir that cannot be used; the message is one line with the remedy."""


class Predictions(NamedTuple):
    """What a finished run says about the test set, and images to show it with.

    N is the number of test images, K of those kept for figures, S of samples.
    """

    probabilities: np.ndarray  # float32 [N, 10], rows sum to 1
    labels: np.ndarray  # int32 [N]
    shown: np.ndarray  # int32 [K], positions in the test set
    shown_images: np.ndarray  # uint8 [K, 28, 28]
    sample_images: np.ndarray  # uint8 [S, 28, 28], from the training set
    sample_labels: np.ndarray  # int32 [S]


def write_atomically(path: Path, content: bytes) -> None:
    """Writes `content` beside `path`, flushes it to disk and renames it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files; records are as readable as any other.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(beside, 0o666 & ~umask)
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def write_config(workdir: Path, config: Mapping[str, Any]) -> None:
    _write_json(workdir / CONFIG, config)


def read_config(workdir: Path, make: Callable[[dict[str, Any]], Any] = dict) -> Any:
    """The settings of the run in `workdir`; None where there is no run.

    Args:
      workdir: the run's folder.
      make: what to make of them; raises ValueError where that cannot be.
    """
    settings = _read_json(workdir / CONFIG)
    try:
        return None if settings is None else make(settings)
    except ValueError as error:
        raise RecordsError(f"{workdir / CONFIG}: {error}") from error


def write_metrics(workdir: Path, epochs: Sequence[Mapping[str, Any]]) -> None:
    """Writes one line per epoch; each mapping has the keys `EPOCH_KEYS`."""
    lines = [json.dumps({key: epoch[key] for key in EPOCH_KEYS}) for epoch in epochs]
    write_atomically(workdir / METRICS, "".join(f"{x}\n" for x in lines).encode())


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """The finished epochs, in order; an empty list where there are none."""
    path = workdir / METRICS
    if not path.exists():
        return []
    try:
        epochs = [json.loads(line) for line in path.read_text().splitlines()]
        for number, epoch in enumerate(epochs, 1):
            if not isinstance(epoch, dict) or tuple(epoch) != EPOCH_KEYS:
                raise ValueError(f"line {number} is not that of an epoch")
            if not all(isinstance(x, int | float | None) for x in epoch.values()):
                raise ValueError(f"line {number} has more than numbers")
            if epoch["epoch"] != number:
                raise ValueError(f"line {number} is that of epoch {epoch['epoch']}")
    except _READ_ERRORS as error:
        raise RecordsError(_damaged(path, error)) from error
    return epochs


def write_result(workdir: Path, result: Mapping[str, Any]) -> None:
    """`result` has the keys `RESULT_KEYS` at least."""
    _write_json(workdir / RESULT, result)


def read_result(workdir: Path) -> dict[str, Any] | None:
    """The final score of the run in `workdir`; None before the run's end."""
    result = _read_json(workdir / RESULT)
    missing = [key for key in RESULT_KEYS if result is not None and key not in result]
    if missing:
        error = ValueError(f"{', '.join(missing)} missing")
        raise RecordsError(_damaged(workdir / RESULT, error))
    return result


def write_predictions(workdir: Path, predictions: Predictions) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **predictions._asdict())
    write_atomically(workdir / PREDICTIONS, buffer.getvalue())


def read_predictions(workdir: Path) -> Predictions | None:
    """The test probabilities of a finished run; None before the run's end."""
    path = workdir / PREDICTIONS
    if not path.exists():
        return None
    try:
        # From memory: np.load leaves a damaged file open.
        content = io.BytesIO(path.read_bytes())
        with np.load(content, allow_pickle=False) as arrays:
            return Predictions(**{name: arrays[name] for name in Predictions._fields})
    except Exception as error:  # zipfile, zlib and numpy each have their own
        raise RecordsError(_damaged(path, error)) from error


def first_line(error: Exception) -> str:
    """What a one-line message quotes of another library's error."""
    line = next(iter(str(error).splitlines()), type(error).__name__)
    return line if len(line) <= _LONGEST_QUOTE else line[:_LONGEST_QUOTE] + " ..."


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise ValueError("no JSON object")
    except _READ_ERRORS as error:
        raise RecordsError(_damaged(path, error)) from error
    return content


def _damaged(path: Path, error: Exception) -> str:
    return (
        f"{path} is damaged ({first_line(error)}): restore the file, or train again "
        "with --overwrite"
    )
