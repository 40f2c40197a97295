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

import contextlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

try:
    import fcntl
except ImportError:  # Windows, where runs are not locked
    fcntl = None

CONFIG = "config.json"
METRICS = "metrics.jsonl"
RESULT = "result.json"
PREDICTIONS = "predictions.npz"
CHECKPOINTS = "checkpoints"
FIGURES = "figures"
TENSORBOARD = "tensorboard"
DAMAGED = "damaged"
LOCK = ".lock"

_LONGEST_QUOTE = 160  # characters

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


def read_config(workdir: Path) -> dict[str, Any] | None:
    """The settings of the run in `workdir`; None where there is no run."""
    return _read_json(workdir / CONFIG)


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
            if epoch["epoch"] != number:
                raise ValueError(f"line {number} is that of epoch {epoch['epoch']}")
    except ValueError as error:
        raise RecordsError(_damaged(path, error)) from error
    return epochs


def write_result(workdir: Path, result: Mapping[str, Any]) -> None:
    _write_json(workdir / RESULT, result)


def read_result(workdir: Path) -> dict[str, Any] | None:
    """The final score of the run in `workdir`; None before the run's end."""
    return _read_json(workdir / RESULT)


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


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Keeps other processes from training in `workdir`, which is made if need be.

    The operating system holds the lock and drops it when its owner ends, however that
    comes about.

    Raises:
      RecordsError: another process holds it, or the folder cannot be written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = (workdir / LOCK).open("a+")
    except OSError as error:
        raise _unwritable(workdir, error) from error
    with file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise RecordsError(
                f"{workdir} is in use by process {file.read().strip() or '?'}: wait "
                "for it, stop it, or give another --workdir"
            ) from None
        except OSError:
            pass  # a network file system without locks
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def start_run(workdir: Path, config: Mapping[str, Any], overwrite: bool) -> None:
    """Makes `workdir` the folder of the run with these settings.

    Args:
      workdir: made if it does not exist.
      config: what config.json will hold.
      overwrite: first remove the files of the run that is there, and nothing else.

    Raises:
      RecordsError: the folder cannot be written, or holds what belongs to no run.
    """
    try:
        unknown = not (workdir / CONFIG).exists() and (workdir / CHECKPOINTS).exists()
        if unknown and not overwrite:
            raise RecordsError(
                f"{workdir} holds checkpoints without a {CONFIG}: give another "
                "--workdir, or remove them with --overwrite"
            )
        if overwrite:
            for name in (RESULT, METRICS, PREDICTIONS, CONFIG):
                (workdir / name).unlink(missing_ok=True)
            for name in (CHECKPOINTS, FIGURES, TENSORBOARD, DAMAGED):
                if (workdir / name).exists():
                    shutil.rmtree(workdir / name)
        write_config(workdir, config)
    except OSError as error:
        raise _unwritable(workdir, error) from error


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
    except (OSError, ValueError) as error:
        raise RecordsError(_damaged(path, error)) from error
    return content


def _unwritable(workdir: Path, error: OSError) -> RecordsError:
    return RecordsError(
        f"--workdir={workdir} cannot be written ({error.strerror}): give a folder that "
        "can, with room on its disk"
    )


def _damaged(path: Path, error: Exception) -> str:
    return (
        f"{path} is damaged ({first_line(error)}): restore the file, or train again "
        "with --overwrite"
    )
