"""Many runs, one after the other, each in a folder of its own."""

import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mnist_jax.config import Config
from mnist_jax.divergence import TrainingError
from mnist_jax.errors import first_line
from mnist_jax.storage import records
from mnist_jax.storage.stored_run import complete_result
from mnist_jax.training import train_and_evaluate


class Run(NamedTuple):
    """A finished run, as its folder holds it."""

    config: Config
    workdir: Path
    result: dict[str, Any]  # result.json
    epochs: list[dict[str, Any]]  # metrics.jsonl
    predictions: records.Predictions

    @property
    def correct(self) -> np.ndarray:
        """bool [N], whether each test image is classified correctly."""
        own = self.predictions
        return own.probabilities.argmax(-1) == own.labels


def train_all(configs: Mapping[str, Config], workdir: Path) -> dict[str, Run]:
    """Trains what is not finished, goes on with what was stopped, and reads all.

    A run's own figures are left to `launch.py --mode=plot`.

    Args:
      configs: by the name of the run's folder in `workdir`.
      workdir: of the study.

    Returns:
      The runs by name.

    Raises:
      RecordsError: a folder holds a run of other settings; as `train_and_evaluate`.
    """
    runs: dict[str, Run] = {}
    began, trained = time.monotonic(), 0
    complete = {name: _is_complete(x, workdir / name) for name, x in configs.items()}
    missing = list(complete.values()).count(False)
    for number, (name, config) in enumerate(configs.items(), 1):
        folder = workdir / name
        if not complete[name]:
            left = _minutes_left(began, trained, missing - trained)
            print(f"run {number} of {len(configs)}: {name}{left}", file=sys.stderr)
            try:
                train_and_evaluate(config, folder)
            except TrainingError as error:
                reason = str(error).partition(":")[0]
                raise TrainingError(
                    f"{folder}: {reason}; this recipe does not train with seed "
                    f"{config.seed}: leave the seed or the recipe out"
                ) from error
            trained += 1
        runs[name] = read(config, folder)
    return runs


def _is_complete(config: Config, folder: Path) -> bool:
    try:
        return complete_result(config, folder) is not None
    except records.RecordsError as error:
        raise records.RecordsError(
            f"{folder} does not hold this study's run: delete it, or give another "
            f"--workdir ({first_line(error)})"
        ) from error


def read(config: Config, folder: Path) -> Run:
    """A finished run.

    Raises:
      RecordsError: one of its files is missing or damaged.
    """
    result = records.read_result(folder)
    if result is None:
        raise records.RecordsError(
            f"{folder} lacks files of its run: delete it, so that it is trained again"
        )
    epochs = records.read_metrics(folder, result)
    predictions = records.read_predictions(folder, result)
    return Run(config, folder, result, epochs, predictions)


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; the latter is 0 for one value."""
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return statistics.fmean(values), std


def summarize(runs: Sequence[Run]) -> dict[str, Any]:
    """One row of runs that differ by seed alone: accuracies, 0 to 1, and seconds."""
    accuracies = [run.result["test_accuracy"] for run in runs]
    last = [run.epochs[-1]["validation_accuracy"] for run in runs]
    validation = [accuracy for accuracy in last if accuracy is not None]
    mean, std = mean_std(accuracies)
    return {
        "model": runs[0].config.model,
        "num_params": runs[0].result["num_params"],
        "epochs": runs[0].config.epochs,
        "seeds": [run.config.seed for run in runs],
        "test_accuracy": mean,
        "std": std,
        "test_accuracies": accuracies,
        "validation_accuracy": statistics.fmean(validation) if validation else None,
        "train_seconds": statistics.fmean(r.result["train_seconds"] for r in runs),
    }


def _minutes_left(began: float, done: int, left: int) -> str:
    """A guess from the runs so far; the next ones may take longer or shorter."""
    if not done:
        return ""
    minutes = (time.monotonic() - began) / done * left / 60
    return f", about {max(1, round(minutes))} min left"
