"""Training: a config and a folder in, a finished run in that folder out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mnist_jax import datasets, records
from mnist_jax.checkpoints import CheckpointError, Checkpoints
from mnist_jax.config import Config, ConfigError
from mnist_jax.train.loop import Interrupted, TrainingError, fit
from mnist_jax.train.result import conclude
from mnist_jax.train.run import prepare

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
    records.RecordsError,
    TrainingError,
    OSError,  # a full disk, a folder that cannot be written
)


def train_and_evaluate(
    config: Config,
    workdir: Path,
    overwrite: bool = False,
    on_epochs: Callable[[list[dict[str, Any]]], None] = lambda epochs: None,
) -> dict[str, Any]:
    """Trains, or goes on training, and scores the test set once at the end.

    Args:
      config: the run's settings.
      workdir: the run's folder, see `records.py`.
      overwrite: replace a run that `workdir` already holds.
      on_epochs: called with all lines of metrics.jsonl when training starts or goes on,
        and whenever there is a new one; not for a run that is complete.

    Returns:
      The content of result.json.

    Raises:
      ConfigError, DatasetError, RecordsError, CheckpointError: the settings, the
        data or the folder do not serve; nothing was changed.
      TrainingError: the loss is not finite.
      Interrupted: SIGINT or SIGTERM came; the run was saved.
    """
    if not overwrite and (result := check_workdir(config, workdir)):
        return result
    run = prepare(config)
    records.start_run(workdir, config.to_dict(), overwrite)
    with Checkpoints(workdir) as checkpoints:
        params, clock = fit(run, workdir, checkpoints, on_epochs)
    return conclude(run, workdir, params, clock)


def check_workdir(config: Config, workdir: Path) -> dict[str, Any] | None:
    """The result of this very run if `workdir` holds it complete, else None.

    Raises:
      RecordsError: `workdir` holds another run.
    """
    settings = records.read_config(workdir)
    if settings is None:
        return None
    stored = Config.from_dict(settings)
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
