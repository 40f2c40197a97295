"""A run as its folder holds it: whether it is this one, and whether it is complete."""

from pathlib import Path
from typing import Any

from mnist_jax import data
from mnist_jax.config import Config, ConfigError
from mnist_jax.storage import records


def read_config(workdir: Path) -> tuple[Config, str | None] | None:
    """Settings and data digest of the run in `workdir`; None where there is no run.

    Raises:
      RecordsError: they are damaged, or written by another version.
    """
    stored = records.read_config(workdir)
    if stored is None:
        return None
    try:
        return Config.from_dict(stored.settings), stored.data_sha256
    except ConfigError as error:
        path = workdir / records.CONFIG
        raise records.RecordsError(f"{path}: {error}") from error


def check_workdir(
    config: Config, workdir: Path, data_sha256: str | None = None
) -> dict[str, Any] | None:
    """The result of this very run if `workdir` holds it complete, else None.

    Args:
      config: of this run.
      workdir: its folder.
      data_sha256: of the data set that is to be trained on, where it is known; else
        that of the prepared copy is asked for.

    Raises:
      RecordsError: `workdir` holds another run, or one on other data.
    """
    stored = read_config(workdir)
    if stored is None:
        return None
    settings, trained_on = stored
    different = [
        f"--{name}={getattr(settings, name)} there, {getattr(config, name)} here"
        for name in settings.differences(config)
    ]
    if data_sha256 is None:
        data_sha256 = data.prepared_sha256(config.dataset, config.data_dir)
    if None not in (trained_on, data_sha256) and trained_on != data_sha256:
        different.append(
            f"other data named {config.dataset}, SHA-256 {trained_on[:12]}... there, "
            f"{data_sha256[:12]}... here"
        )
    if different:
        raise records.RecordsError(
            f"{workdir} holds another run ({'; '.join(different)}): give another "
            "--workdir, or replace that run with --overwrite"
        )
    return records.read_result(workdir)
