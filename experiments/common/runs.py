"""Many runs, one after the other, each in a folder of its own."""

import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mnist_jax import digests
from mnist_jax.config import Config
from mnist_jax.divergence import TrainingError
from mnist_jax.errors import first_line
from mnist_jax.formats import counted
from mnist_jax.storage import records
from mnist_jax.storage.stored_run import complete_result
from mnist_jax.storage.workdir import InUseError, lock
from mnist_jax.training import train_and_evaluate

_CLAIMS = "claims"  # folder whose locks say which runs are being trained
_SECONDS_BETWEEN_LOOKS = 2.0


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


def train_all(
    configs: Mapping[str, Config], workdir: Path, is_last: bool = True
) -> dict[str, Run]:
    """Trains what is not finished, goes on with what was stopped, and reads all.

    Several processes may do so in one `workdir`, on one machine or on several that
    share it: each trains what no other is training, also what a lost one left, and then
    waits for the others. A run's own figures are left to `launch.py --mode=plot`.

    Args:
      configs: by the name of the run's folder in `workdir`.
      workdir: of the study.
      is_last: whether only the report is left. Then the process that trained the last
        run returns, and those that waited for it end here with status 0.

    Returns:
      The runs by name.

    Raises:
      RecordsError: a folder holds a run of other settings; as `train_and_evaluate`.
    """
    missing = [x for x in configs if not _is_complete(configs[x], workdir / x)]
    began, trained, waits = time.monotonic(), 0, False
    while missing:
        left = _minutes_left(began, trained, len(missing))
        if _train_first_free(configs, missing, workdir, left):
            trained, waits = trained + 1, False
        else:
            if not waits:
                count = counted(len(missing), "run")
                print(f"{count} left, which other processes train", file=sys.stderr)
            waits = True
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        missing = [x for x in missing if not _is_complete(configs[x], workdir / x)]
    if waits and is_last:
        print("all runs are trained; another process reports", file=sys.stderr)
        sys.exit(0)
    return {name: read(config, workdir / name) for name, config in configs.items()}


@contextlib.contextmanager
def claimed(workdir: Path, name: str) -> Iterator[None]:
    """Waits until no other process has `name` claimed, and then holds it."""
    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(lock(workdir / _CLAIMS / name))
                break
            except InUseError:
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        yield


def _train_first_free(
    configs: Mapping[str, Config], missing: Sequence[str], workdir: Path, left: str
) -> bool:
    """Trains that of the missing runs which no other process has claimed, if any."""
    for name in missing:
        with contextlib.suppress(InUseError), lock(workdir / _CLAIMS / name):
            if not _is_complete(configs[name], workdir / name):
                number = list(configs).index(name) + 1
                print(f"run {number} of {len(configs)}: {name}{left}", file=sys.stderr)
                _train(configs[name], workdir / name)
                return True
    return False


def _train(config: Config, folder: Path) -> None:
    try:
        train_and_evaluate(config, folder)
    except TrainingError as error:
        reason = str(error).partition(":")[0]
        raise TrainingError(
            f"{folder}: {reason}; this recipe does not train with seed "
            f"{config.seed}: leave the seed or the recipe out"
        ) from error


def _is_complete(config: Config, folder: Path) -> bool:
    with own_folder(folder):
        return complete_result(config, folder) is not None


@contextlib.contextmanager
def own_folder(folder: Path) -> Iterator[None]:
    """Says of a folder that holds another run what to do in a study."""
    try:
        yield
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


def kept_arrays(
    run: Run, name: str, compute: Callable[[], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Arrays by name that `compute` makes of a run, kept in its folder.

    They are computed once, and again if another run has taken the folder, which the
    predictions tell.

    Args:
      run: finished.
      name: of the .npz file.
      compute: slow; no array of its own is named 'predictions'.

    Raises:
      RecordsError: the file is damaged.
    """
    path = run.workdir / name
    digest = digests.of_arrays(run.predictions.probabilities)
    if path.exists():
        kept = records.read_arrays(path, dict, "delete the file")
        if kept.pop("predictions", None) == digest:
            return kept
    arrays = dict(compute())
    records.write_arrays(path, arrays | {"predictions": np.array(digest)})
    return arrays


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation; the latter is None for one value."""
    std = statistics.stdev(values) if len(values) > 1 else None
    return statistics.fmean(values), std


def summarize(runs: Sequence[Run]) -> dict[str, Any]:
    """One row of runs that differ by seed alone: accuracies, 0 to 1, and seconds.

    That of the ensemble is of their mean probabilities.
    """
    accuracies = [run.result["test_accuracy"] for run in runs]
    last = [run.epochs[-1]["validation_accuracy"] for run in runs]
    validation = [accuracy for accuracy in last if accuracy is not None]
    mean, std = mean_std(accuracies)
    together = np.mean([run.predictions.probabilities for run in runs], axis=0)
    correct = together.argmax(-1) == runs[0].predictions.labels
    return {
        "model": runs[0].config.model,
        "num_params": runs[0].result["num_params"],
        "epochs": runs[0].config.epochs,
        "seeds": [run.config.seed for run in runs],
        "test_accuracy": mean,
        "std": std,
        "test_accuracies": accuracies,
        "ensemble_accuracy": float(correct.mean()),
        "validation_accuracy": statistics.fmean(validation) if validation else None,
        "train_seconds": statistics.fmean(r.result["train_seconds"] for r in runs),
    }


def _minutes_left(began: float, done: int, left: int) -> str:
    """A guess from the runs so far; the next ones may take longer or shorter."""
    if not done:
        return ""
    minutes = (time.monotonic() - began) / done * left / 60
    return f", about {max(1, round(minutes))} min left"
