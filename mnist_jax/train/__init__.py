"""Training: a config and a folder in, a finished run in that folder out."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mnist_jax import datasets, parallel, records, run_folder
from mnist_jax.checkpoints import CheckpointError, Checkpoints
from mnist_jax.config import Config, ConfigError
from mnist_jax.train.loop import Interrupted, TrainingError, fit
from mnist_jax.train.result import conclude
from mnist_jax.train.run import fingerprint, prepare

__all__ = [
    "USER_ERRORS",
    "Interrupted",
    "TrainingError",
    "check_workdir",
    "train_and_evaluate",
]

# What a person can mend, each with one line that says how.
USER_ERRORS = (
    CheckpointError,
    ConfigError,
    datasets.DatasetError,
    parallel.DeviceError,
    parallel.ProcessError,
    records.RecordsError,
    TrainingError,
    OSError,  # a full disk, a folder that cannot be written
)


def train_and_evaluate(
    config: Config,
    workdir: Path,
    overwrite: bool = False,
    on_epochs: Callable[[list[dict[str, Any]]], None] = lambda epochs: None,
) -> dict[str, Any] | None:
    """Trains, or goes on training, and scores the test set once at the end.

    Of several processes all call this, and the first alone reads and writes `workdir`.

    Args:
      config: the run's settings.
      workdir: the run's folder, see `records.py`.
      overwrite: replace a run that `workdir` already holds.
      on_epochs: called with all lines of metrics.jsonl when training starts or goes on,
        and whenever there is a new one; not for a run that is complete.

    Returns:
      The content of result.json; None in processes other than the first.

    Raises:
      ConfigError, DatasetError, DeviceError, RecordsError, CheckpointError: the
        settings, the data, a device or the folder do not serve; nothing was changed.
      ProcessError: another process failed, is lost, or does something else.
      TrainingError: the loss is not finite.
      Interrupted: SIGINT or SIGTERM came; the run was saved.
    """
    with parallel.lost_is_told(), contextlib.ExitStack() as held:
        result = _first(lambda: None if overwrite else check_workdir(config, workdir))
        if any(parallel.agree(result is not None)):
            return result
        with parallel.together(USER_ERRORS):
            run = prepare(config)
        if parallel.is_one_of_several():
            parallel.check_same(fingerprint(run))
        opened = _first(lambda: _open(held, config, workdir, overwrite))
        result, checkpoints = opened or (None, None)
        if any(parallel.agree(result is not None)):
            return result
        params, clock = fit(run, workdir, checkpoints, on_epochs)
        return _first(lambda: conclude(run, workdir, params, clock))


def _first(function: Callable[[], Any]) -> Any:
    """What `function` gives in the first process; where it fails, all fail."""
    with parallel.together(USER_ERRORS):
        return function() if parallel.is_first() else None


def _open(
    held: contextlib.ExitStack, config: Config, workdir: Path, overwrite: bool
) -> tuple[dict[str, Any] | None, Checkpoints | None]:
    """Locks `workdir` until `held` closes; a result if another process was faster."""
    held.enter_context(run_folder.lock(workdir))
    if not overwrite and (result := check_workdir(config, workdir)):
        return result, None
    run_folder.start(workdir, config.to_dict(), overwrite)
    return None, held.enter_context(Checkpoints(workdir))


def check_workdir(config: Config, workdir: Path) -> dict[str, Any] | None:
    """The result of this very run if `workdir` holds it complete, else None.

    Raises:
      RecordsError: `workdir` holds another run.
    """
    stored = records.read_config(workdir, Config.from_dict)
    if stored is None:
        return None
    different = [
        f"--{name}={getattr(stored, name)} there, {getattr(config, name)} here"
        for name in stored.differences(config)
    ]
    if different:
        raise records.RecordsError(
            f"{workdir} holds another run ({'; '.join(different)}): give another "
            "--workdir, or replace that run with --overwrite"
        )
    return records.read_result(workdir)
