"""Many runs, one after the other, each in a folder of its own."""

import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mnist_jax import records, train
from mnist_jax.config import Config, ConfigError, absolute_folder


def seeds(texts: Sequence[str]) -> list[int]:
    """The numbers of a flag --seeds.

    Raises:
      ConfigError: there are none, one is given twice, or one is no seed.
    """
    given = ",".join(texts)
    if not texts or not all(x.isdecimal() and int(x) < 2**32 for x in texts):
        raise ConfigError(
            f"--seeds={given}: expected whole numbers from 0 to 4294967295, with commas"
        )
    numbers = [int(text) for text in texts]
    if len(set(numbers)) < len(numbers):
        raise ConfigError(f"--seeds={given}: give each once")
    return numbers


def folders(given: Any) -> dict[str, str | None]:
    """--data_dir and --raw_dir, as records keep them."""
    return {n: absolute_folder(getattr(given, n)) for n in ("data_dir", "raw_dir")}


class Run(NamedTuple):
    """A finished run, as its folder holds it."""

    config: Config
    workdir: Path
    result: dict[str, Any]  # result.json
    epochs: list[dict[str, Any]]  # metrics.jsonl
    predictions: records.Predictions

    @property
    def right(self) -> np.ndarray:
        """bool [N], whether each test image is classified rightly."""
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
    missing = sum(not (workdir / n / records.RESULT).exists() for n in configs)
    for number, (name, config) in enumerate(configs.items(), 1):
        folder = workdir / name
        try:
            complete = train.check_workdir(config, folder) is not None
        except records.RecordsError as error:
            raise records.RecordsError(
                f"{folder} does not hold this study's run: delete it, or give another "
                f"--workdir ({records.first_line(error)})"
            ) from error
        if not complete:
            left = _minutes_left(began, trained, missing - trained)
            print(f"run {number} of {len(configs)}: {name}{left}", file=sys.stderr)
            try:
                train.train_and_evaluate(config, folder)
            except train.TrainingError as error:
                reason = str(error).partition(":")[0]
                raise train.TrainingError(
                    f"{folder}: {reason}; this recipe does not train with seed "
                    f"{config.seed}: leave the seed or the recipe out"
                ) from error
            trained += 1
        runs[name] = read(config, folder)
    return runs


def read(config: Config, folder: Path) -> Run:
    """A finished run."""
    return Run(
        config,
        folder,
        records.read_result(folder),
        records.read_metrics(folder),
        records.read_predictions(folder),
    )


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation; the latter is 0 for one value."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return statistics.fmean(values), deviation


def summarize(runs: Sequence[Run]) -> dict[str, Any]:
    """What runs of the same settings but different seeds have in common."""
    accuracies = [run.result["test_accuracy"] for run in runs]
    validation = [run.epochs[-1]["validation_accuracy"] for run in runs]
    mean, deviation = spread(accuracies)
    return {
        "model": runs[0].config.model,
        "num_params": runs[0].result["num_params"],
        "epochs": runs[0].config.epochs,
        "seeds": [run.config.seed for run in runs],
        "test_accuracy": mean,
        "spread": deviation,
        "test_accuracies": accuracies,
        "validation_accuracy": statistics.fmean(validation),
        "train_seconds": statistics.fmean(r.result["train_seconds"] for r in runs),
    }


def _minutes_left(began: float, done: int, left: int) -> str:
    """A guess from the runs so far; the next ones may take longer or shorter."""
    if not done:
        return ""
    minutes = (time.monotonic() - began) / done * left / 60
    return f", about {max(1, round(minutes))} min left"
