"""--teacher: the runs that a run learns from.

As with --init_from their SHA-256 is part of the run, where they lie is not. They are
needed in every step, so until the run is complete.
"""

from collections.abc import Sequence
from pathlib import Path

from mnist_jax import digests, stored_model
from mnist_jax.config import Config, ConfigError
from mnist_jax.data import Dataset
from mnist_jax.distillation import Teacher
from mnist_jax.storage.stored_run import read_config
from mnist_jax.stored_model import StoredModel


def load(config: Config) -> tuple[StoredModel, ...]:
    """Reads the teachers; none where `config` has none.

    Raises:
      RecordsError, CheckpointError: there is no run that can be read.
    """
    paths = [] if config.teacher is None else config.teacher.split(",")
    return tuple(stored_model.load(Path(path), "teacher") for path in paths)


def sha256(members: Sequence[StoredModel]) -> str | None:
    """Of the params of all; None where there are none."""
    digest = [digests.of_arrays(member.params) for member in members]
    return digests.of_json(digest) if digest else None


def find_sha256(config: Config, workdir: Path) -> str | None:
    """`sha256`, from the run's own record if that names the same folders.

    So a complete run does without them.

    Args:
      config: of the run.
      workdir: its folder.

    Raises:
      RecordsError, CheckpointError: there is no run that can be read.
    """
    if config.teacher is None:
        return None
    own = read_config(workdir)
    if own is not None and own.config.teacher == config.teacher:
        return own.facts.teacher_sha256
    return sha256(load(config))


def fit(
    members: Sequence[StoredModel], config: Config, dataset: Dataset
) -> Teacher | None:
    """What the train step needs of the teachers; None where there are none.

    Raises:
      ConfigError: a teacher is of other images or classes.
    """
    if not members:
        return None
    expected = dataset.train_images.shape[1:], dataset.class_names
    for path, member in zip(config.teacher.split(","), members, strict=True):
        if (member.facts.image_shape, member.facts.class_names) != expected:
            raise ConfigError(
                f"--teacher={path}: a run on {member.config.dataset}, whose images or "
                f"classes are not those of {dataset.name}: give a run on the same data"
            )
    return Teacher(
        tuple(member.model for member in members),
        tuple(member.params for member in members),
    )
