"""A run's files: written and read here and nowhere else.

A run lives in one folder, its workdir:

    config.json       see stored_config.py
    metrics.jsonl     one line per finished epoch
    result.json       the test score and what it took; written once, at the end
    predictions.npz   the test probabilities, and the images that the figures show
    checkpoints/      see checkpoints.py
    figures/ export/  see mnist_jax/plots and mnist_jax/export
    tensorboard/      see mnist_jax/tensorboard.py
    damaged/          checkpoints that could not be read
    .lock             held by the process that trains the run

Every file is written beside its final name and then renamed, so that a reader, or
a run that goes on after a crash, never meets half a file. JSON carries the number of
its schema. Schema 1 had none, no digest of the data, and a fixed set of metrics; what
it wrote is read as it is. A later version adds keys, and takes a new number only where
the meaning of a key changes.
"""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mnist_jax.errors import UserError, first_line
from mnist_jax.storage import record_checks, stored_config
from mnist_jax.storage.atomic import write_atomically
from mnist_jax.storage.stored_config import NO_FACTS, Facts, StoredConfig

SCHEMA = 2
CONFIG = "config.json"
METRICS = "metrics.jsonl"
RESULT = "result.json"
PREDICTIONS = "predictions.npz"
CHECKPOINTS = "checkpoints"
FIGURES = "figures"
TENSORBOARD = "tensorboard"
EXPORT = "export"
DAMAGED = "damaged"
LOCK = ".lock"

# Without these a file is taken for damaged; all other keys may be missing.
CONFIG_KEYS = ("model", "dataset", "seed")
EPOCH_KEYS = ("epoch", "train_loss")
RESULT_KEYS = (
    "dataset",
    "class_names",
    "test_accuracy",
    "test_loss",
    "per_class_accuracy",
    "confusion_matrix",
    "num_params",
    "num_test_images",
    "epochs",
    "train_seconds",
    "compile_seconds",
)

_REMEDY = "restore the file, or train again with --overwrite"
MAKE_AGAIN = "restore the file, or repeat the training command, which makes it again"

# RecursionError: brackets in brackets in brackets.
_READ_ERRORS = (OSError, ValueError, RecursionError)


class RecordsError(UserError):
    """A workdir that cannot be used."""


class Predictions(NamedTuple):
    """Predictions of a finished run for the test set, and images to show them with.

    N is the number of test images, K of those kept for figures, S of samples, C of
    classes.
    """

    probabilities: np.ndarray  # float32 [N, C], rows sum to 1
    labels: np.ndarray  # int32 [N]
    shown: np.ndarray  # int32 [K], indices of the test set
    shown_images: np.ndarray  # uint8 [K, H, W]
    sample_images: np.ndarray  # uint8 [S, H, W], from the training set
    sample_labels: np.ndarray  # int32 [S]


def write_config(
    workdir: Path, settings: Mapping[str, Any], sha256: str, facts: Facts = NO_FACTS
) -> None:
    """Settings, digest of the data and facts are what `StoredConfig` says."""
    content = stored_config.to_json(StoredConfig(dict(settings), sha256, facts))
    write_json(workdir / CONFIG, content)


def read_config(workdir: Path) -> StoredConfig | None:
    """The settings of the run in `workdir`; None where there is no run."""
    content = read_json(workdir / CONFIG, CONFIG_KEYS, check=stored_config.check)
    return None if content is None else stored_config.from_json(content)


def write_metrics(workdir: Path, epochs: Sequence[Mapping[str, Any]]) -> None:
    """Writes one line per epoch; each mapping has the keys `EPOCH_KEYS` at least."""
    lines = [json.dumps({"schema": SCHEMA, **epoch}) for epoch in epochs]
    write_atomically(workdir / METRICS, "".join(f"{x}\n" for x in lines).encode())


def read_metrics(
    workdir: Path, result: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The finished epochs, in order; an empty list where there are none.

    All values are numbers or None. Which metrics there are depends on the version that
    wrote the line. With the `result` of a complete run a lost epoch is a RecordsError.
    """
    path = workdir / METRICS
    if not _exists(path, result):
        return []
    try:
        epochs = [json.loads(line) for line in path.read_text().splitlines()]
        for epoch in epochs:
            _check(epoch, EPOCH_KEYS)
            del epoch["schema"]
        record_checks.check_epochs(epochs, result)
    except _READ_ERRORS as error:
        raise damaged(path, error, MAKE_AGAIN) from error
    return epochs


def write_result(workdir: Path, result: Mapping[str, Any]) -> None:
    """`result` has the keys `RESULT_KEYS` at least."""
    write_json(workdir / RESULT, result)


def read_result(workdir: Path) -> dict[str, Any] | None:
    """The final score of the run in `workdir`; None before the run's end."""
    return read_json(workdir / RESULT, RESULT_KEYS, check=record_checks.check_result)


def write_predictions(workdir: Path, predictions: Predictions) -> None:
    write_arrays(workdir / PREDICTIONS, predictions._asdict())


def read_predictions(
    workdir: Path, result: Mapping[str, Any] | None = None
) -> Predictions | None:
    """The test probabilities of a finished run; None before the run's end.

    With the `result` of a complete run, none or those of others are a RecordsError.
    """
    path = workdir / PREDICTIONS
    if not _exists(path, result):
        return None

    def make(arrays):
        predictions = Predictions(*(arrays[x] for x in Predictions._fields))
        record_checks.check_predictions(predictions, result)
        return predictions

    return read_arrays(path, make, MAKE_AGAIN)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name as a compressed .npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def read_arrays(path: Path, make: Callable[[Mapping], Any], remedy: str) -> Any:
    """What `make` makes of the arrays by name that `write_arrays` wrote.

    Raises:
      RecordsError: the file is damaged, or `make` failed; `remedy` says what to do.
    """
    try:
        # From memory: np.load leaves a damaged file open.
        content = io.BytesIO(path.read_bytes())
        with np.load(content, allow_pickle=False) as arrays:
            return make(arrays)
    except Exception as error:  # zipfile, zlib and numpy each have their own
        raise damaged(path, error, remedy) from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON object with the schema's number."""
    content = {"schema": SCHEMA, **content}
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def _exists(path: Path, result: Mapping[str, Any] | None) -> bool:
    """Whether there is such a file; a run that has a result must have it."""
    if result is not None and not path.exists():
        raise RecordsError(f"{path} is missing: {MAKE_AGAIN}")
    return path.exists()


def damaged(path: Path, error: Exception, remedy: str = _REMEDY) -> RecordsError:
    """What to say of a file that cannot be read."""
    return RecordsError(f"{path} is damaged ({first_line(error)}): {remedy}")


def read_json(
    path: Path,
    keys: Sequence[str],
    remedy: str = _REMEDY,
    check: Callable[[dict[str, Any]], None] = lambda content: None,
) -> dict[str, Any] | None:
    """A JSON object with its 'schema'; None where there is no file.

    Args:
      path: of a file that `write_json` wrote.
      keys: those without which it is taken for damaged.
      remedy: what to do then.
      check: raises ValueError for values that cannot be.

    Raises:
      RecordsError: it is damaged, or of a later schema.
    """
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
        _check(content, keys)
        check(content)
    except _READ_ERRORS as error:
        raise damaged(path, error, remedy) from error
    return content


def _check(content: Any, keys: Sequence[str]) -> None:
    """Refuses what is no object of a schema that is known; fills its number in."""
    if not isinstance(content, dict):
        raise ValueError("no JSON object")
    if content.setdefault("schema", 1) not in range(1, SCHEMA + 1):
        raise ValueError(f"schema {content['schema']} is of another version")
    if missing := [key for key in keys if key not in content]:
        raise ValueError(f"{', '.join(missing)} missing")
