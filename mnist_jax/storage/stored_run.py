"""A run as its folder holds it: whether it is this one, whether it is complete, and
opened to go on with.

A complete run is result.json, metrics.jsonl and predictions.npz. Where one of the
latter two is missing or damaged, the run goes on from its last checkpoint, where no
step is left to train, and makes both again.
"""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging

from mnist_jax import data
from mnist_jax.config import Config, ConfigError
from mnist_jax.storage import records
from mnist_jax.storage import workdir as workdir_lib
from mnist_jax.storage.checkpoints import Checkpoints
from mnist_jax.storage.stored_config import NO_FACTS, Facts


class StoredRun(NamedTuple):
    """What the config.json of a run says."""

    config: Config
    data_sha256: str | None  # None where an earlier version wrote none
    facts: Facts  # class names and image shape are always known


def read_config(workdir: Path) -> StoredRun | None:
    """The run in `workdir`; None where there is none.

    Raises:
      RecordsError: its config.json is damaged, or written by another version.
    """
    stored = records.read_config(workdir)
    if stored is None:
        return None
    path = workdir / records.CONFIG
    try:
        config = Config.from_dict(stored.settings)
    except ConfigError as error:
        raise records.RecordsError(f"{path}: {error}") from error
    # Until they were recorded, they were those of the name of the data set.
    source = data.DATASETS.get(config.dataset)
    known = Facts(source.class_names, source.image_shape) if source else Facts()
    facts = stored.facts._replace(
        class_names=stored.facts.class_names or known.class_names,
        image_shape=stored.facts.image_shape or known.image_shape,
    )
    if not facts.class_names:
        error = ValueError("class_names missing")
        raise records.damaged(path, error)
    return StoredRun(config, stored.data_sha256, facts)


def require_config(workdir: Path, flag: str = "workdir") -> StoredRun:
    """`read_config` of a folder that a person gave by a flag as that of a run.

    Raises:
      RecordsError: there is no run, or its record is damaged or of another version.
    """
    stored = read_config(workdir)
    if stored is None:
        raise records.RecordsError(
            f"--{flag}={workdir} holds no run: give the folder that a training run was "
            "given or printed"
        )
    return stored


def check_workdir(
    config: Config,
    workdir: Path,
    data_sha256: str | None = None,
    others: Facts = NO_FACTS,
) -> dict[str, Any] | None:
    """The result of this very run if `workdir` holds one, else None.

    Whether its other files are sound `complete_result` tells.

    Args:
      config: of this run.
      workdir: its folder.
      data_sha256: of the data set that is to be trained on, where it is known; else
        that of the prepared copy is asked for.
      others: digests of the runs that it starts or learns from, where they are known.

    Raises:
      RecordsError: `workdir` holds another run, or one on other data or from other
        weights, or its result.json is damaged.
    """
    stored = read_config(workdir)
    if stored is None:
        return None
    settings, trained_on, facts = stored
    different = [
        f"--{name}={getattr(settings, name)} there, {getattr(config, name)} here"
        for name in settings.differences(config)
    ]
    if data_sha256 is None:
        data_sha256 = data.prepared_sha256(
            config.dataset, config.data_dir, config.raw_dir, config.preprocess
        )
    if None not in (trained_on, data_sha256) and trained_on != data_sha256:
        different.append(
            f"other data named {config.dataset}, SHA-256 {trained_on[:12]}... there, "
            f"{data_sha256[:12]}... here"
        )
    for name in ("init_from", "teacher"):
        then, now = (getattr(x, f"{name}_sha256") for x in (facts, others))
        is_known = now or getattr(settings, name) != getattr(config, name)
        if is_known and then != now:
            there = _describe_other(name, settings, then)
            different.append(
                f"{there} there, {_describe_other(name, config, now)} here"
            )
    if different:
        raise records.RecordsError(
            f"{workdir} holds another run ({'; '.join(different)}): give another "
            "--workdir, or replace that run with --overwrite"
        )
    result = records.read_result(workdir)
    for name in ("dataset", "epochs"):
        if result is not None and result[name] != getattr(settings, name):
            error = f"{name} is {result[name]!r}, in {records.CONFIG} it is another"
            raise records.damaged(workdir / records.RESULT, ValueError(error))
    return result


def check_others(config: Config, workdir: Path) -> None:
    """Refuses a run that starts from or learns from what it would replace.

    Raises:
      RecordsError: one of the other runs is in `workdir`.
    """
    others = {
        "init_from": [config.init_from],
        "teacher": (config.teacher or "").split(","),
    }
    for name, paths in others.items():
        # `Path.resolve` fails where a link leads to itself.
        own = os.path.realpath(workdir)
        if own in [os.path.realpath(path) for path in paths if path]:
            raise records.RecordsError(
                f"--{name}={getattr(config, name)}: {workdir} is the folder of this "
                "run: give another --workdir"
            )


def _describe_other(name: str, config: Config, sha256: str | None) -> str:
    if sha256 is None:
        return f"no --{name}"
    return f"--{name}={getattr(config, name)} (weights of SHA-256 {sha256[:12]}...)"


def complete_result(
    config: Config, workdir: Path, others: Facts = NO_FACTS
) -> dict[str, Any] | None:
    """`check_workdir`, and None where another file of the complete run is lost."""
    result = check_workdir(config, workdir, others=others)
    return None if result is None or _find_lost(workdir, result) else result


def open_run(
    held: contextlib.ExitStack,
    config: Config,
    workdir: Path,
    data_sha256: str,
    overwrite: bool,
    facts: Facts,
) -> tuple[dict[str, Any] | None, Checkpoints | None]:
    """Locks `workdir` for this run until `held` closes.

    Args:
      held: takes the lock and the checkpoints.
      config: of this run.
      workdir: its folder; made if it does not exist.
      data_sha256: of the data set that is to be trained on.
      overwrite: replace the run that is there.
      facts: what config.json is to say of this run.

    Returns:
      The result, if another process was faster to complete the run; else the
      checkpoints to go on from.

    Raises:
      RecordsError: as `check_workdir`; the folder is in use or cannot be written; or a
        file of a complete run is lost, and there is no checkpoint to make it from.
    """
    held.enter_context(workdir_lib.lock(workdir))
    result = None if overwrite else check_workdir(config, workdir, data_sha256, facts)
    lost = [] if result is None else _find_lost(workdir, result)
    if result is not None and not lost:
        return result, None
    if result is None:
        workdir_lib.initialise(workdir, config.to_dict(), data_sha256, overwrite, facts)
    checkpoints = held.enter_context(Checkpoints(workdir, config.identity()))
    if lost and checkpoints.latest_step() is None:
        raise records.RecordsError(
            f"{'; '.join(lost)}; there is no checkpoint to make it from: restore the "
            "file, or train again with --overwrite"
        )
    for what in lost:
        logging.warning("%s; making it again from the last checkpoint", what)
    return None, checkpoints


def _find_lost(workdir: Path, result: Mapping[str, Any]) -> list[str]:
    """What is missing or damaged of a complete run, one text for each file.

    Args:
      workdir: of the run.
      result: of `check_workdir`.
    """
    lost = []
    for read in (records.read_metrics, records.read_predictions):
        try:
            read(workdir, result)
        except records.RecordsError as error:
            lost.append(str(error).removesuffix(f": {records.MAKE_AGAIN}"))
    return lost
