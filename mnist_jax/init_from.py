"""--init_from: a run that starts from the weights of another run's last checkpoint.

Which weights these are, their SHA-256 says, which is part of the run; where they lie is
not. From the run's own first checkpoint on the other run is not looked at any more. The
optimizer's state and the step start new.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax

from mnist_jax import digests, stored_model, train_step
from mnist_jax.config import Config, ConfigError
from mnist_jax.data import Dataset
from mnist_jax.storage import records
from mnist_jax.storage.checkpoints import Checkpoints
from mnist_jax.storage.stored_config import Facts
from mnist_jax.storage.stored_run import read_config
from mnist_jax.stored_model import StoredModel
from mnist_jax.training_setup import Setup, build_model


class Start(NamedTuple):
    """What a run starts from, by default its own first values."""

    sha256: str | None = None  # of the other run's params
    other: StoredModel | None = None  # None where they are not needed any more
    new_params: tuple[str, ...] | None = None  # known where `other` is None


def find(config: Config, workdir: Path, overwrite: bool) -> Start:
    """Reads the weights that a run starts from, if it has still to start from them.

    Args:
      config: of the run.
      workdir: its folder.
      overwrite: whether the run that it holds is to be replaced.

    Raises:
      RecordsError, CheckpointError: there is no run that can be read.
    """
    if config.init_from is None:
        return Start()
    own = None if overwrite else read_config(workdir)
    if (
        own is not None
        and own.facts.init_from_sha256
        and own.config.init_from == config.init_from
        and _has_begun(own.config, workdir)
    ):
        return Start(own.facts.init_from_sha256, None, own.facts.new_params)
    other = stored_model.load(Path(config.init_from), "init_from")
    return Start(digests.of_arrays(other.params), other)


def _has_begun(config: Config, workdir: Path) -> bool:
    """Whether a run goes on, or ended, without its first values."""
    with Checkpoints(workdir, config.identity(), read_only=True) as checkpoints:
        is_saved = checkpoints.latest_step() is not None
    return is_saved or (workdir / records.RESULT).exists()


def fit(start: Start, setup: Setup) -> tuple[Facts, Any]:
    """What the run's record says of its start, and the params of its first step.

    The latter are None where they are those of `setup`. No optimizer's first state
    depends on the values of params.

    Raises:
      ConfigError: the weights do not fit.
    """
    dataset, params, new_params = setup.dataset, None, start.new_params
    if start.other is not None:
        own = jax.device_get(setup.trainer.state.params)
        params, new_params = _merge(setup.config, start.other, own, dataset)
    facts = Facts(
        class_names=dataset.class_names,
        image_shape=dataset.train_images.shape[1:],
        init_from_sha256=start.sha256,
        new_params=new_params,
    )
    return facts, params


def _merge(
    config: Config, other: StoredModel, params: Any, dataset: Dataset
) -> tuple[Any, tuple[str, ...]]:
    """`params` with the other run's in place of all whose shape is that of theirs.

    Returns:
      The tree, and the names of those leaves that are kept, as the number of classes
      decides their shape.
    """
    if other.config.model != config.model:
        raise ConfigError(
            f"--init_from={config.init_from}: a run of --model={other.config.model}, "
            f"expected one of --model={config.model}: give another, or that model"
        )
    # What the other run would have for its classes, were all the rest as here.
    image_shape = dataset.train_images.shape[1:]
    model = build_model(config, image_shape, len(other.facts.class_names))
    expected = _shapes(train_step.init_params_shapes(model, image_shape))
    found = _shapes(other.params)
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise ConfigError(
                f"--init_from={config.init_from}: {name} is {_by(found.get(name))} "
                f"there, {_by(expected.get(name))} here: give a run with images and "
                "layers of the same sizes, or this one the settings of that"
            )
    own = _shapes(params)
    new_params = tuple(name for name in own if own[name] != found[name])
    if len(new_params) == len(own):
        raise ConfigError(
            f"--init_from={config.init_from}: of {len(other.facts.class_names)} "
            f"classes, here are {len(dataset.class_names)}, and {config.model} has no "
            "layer before the last: leave it out"
        )
    merged = jax.tree.map(
        lambda leaf, theirs: theirs if leaf.shape == theirs.shape else leaf,
        params,
        other.params,
    )
    return merged, new_params


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Of the leaves by name, as 'Dense_0/kernel'."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def _by(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else "x".join(map(str, shape))
