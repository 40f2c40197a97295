"""Flags that several studies have, and what their values stand for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from mnist_jax import cli, data
from mnist_jax.config import SETTINGS, Config, ConfigError, absolute_folder
from mnist_jax.storage import workdir as workdir_lib

flags.disclaim_key_flags()  # `--help` shows them as the study's own


def define_seeds(*default: int) -> None:
    """--seeds."""
    text = "seeds to train with, with commas"
    flags.DEFINE_list("seeds", [str(seed) for seed in default], text)


def define_folders(workdir: str) -> None:
    """--data_dir, --raw_dir and --workdir, whose default is `workdir`."""
    cli.define_settings(("data_dir", "raw_dir"))
    flags.DEFINE_string("workdir", None, f"where to write (default: {workdir})")


def seeds(texts: Sequence[str]) -> list[int]:
    """The numbers of --seeds.

    Raises:
      ConfigError: there are none, one is given twice, or one is no seed.
    """
    one = SETTINGS["seed"]
    try:
        numbers = [one.parse(text) for text in texts]
        for number in numbers:
            one.check(number)
        if not numbers:
            one.refuse("")
    except ConfigError:
        raise ConfigError(
            f"--seeds={','.join(texts)}: expected whole numbers from {one.low} to "
            f"{one.high}, with commas"
        ) from None
    check_each_once("seeds", texts, numbers)
    return numbers


def names(flag: str, texts: Sequence[str], known: Sequence[str]) -> list[str]:
    """The names of a flag like --datasets.

    Raises:
      ConfigError: there are none, one is given twice, or one is not `known`.
    """
    for text in texts or [""]:
        if text not in known:
            raise ConfigError(f"--{flag}={text}: expected some of {', '.join(known)}")
    check_each_once(flag, texts)
    return list(texts)


def check_is_known(dataset: str) -> None:
    """Raises a ConfigError for auto, whose presets and images are not known before."""
    if dataset == "auto":
        raise ConfigError(
            "--dataset=auto: give the data set whose presets are meant, one of "
            f"{', '.join(data.DATASETS)}"
        )


def check_validates(config: Config) -> None:
    """Raises a ConfigError if the run holds out no images, by which to compare."""
    if not config.validation_fraction:
        raise ConfigError(
            f"--preset={config.preset}: it holds out no images of {config.dataset}, by "
            "whose accuracy this study compares: give another preset"
        )


def check_each_once(
    flag: str, texts: Sequence[str], values: Sequence[Any] | None = None
) -> None:
    """Raises a ConfigError if one of the values, else of the texts, is given twice."""
    values = texts if values is None else values
    if len(set(values)) < len(values):
        raise ConfigError(f"--{flag}={','.join(texts)}: give each once")


def folders(given: flags.FlagValues) -> dict[str, str | None]:
    """--data_dir and --raw_dir, as records keep them."""
    return {n: absolute_folder(given[n].value) for n in ("data_dir", "raw_dir")}


def workdir(given: flags.FlagValues) -> Path | None:
    """--workdir; None where it is not given.

    Raises:
      RecordsError: no folder can be there.
    """
    return None if given.workdir is None else workdir_lib.parse(given.workdir)
