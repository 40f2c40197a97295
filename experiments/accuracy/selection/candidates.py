"""Candidate recipes: settings that are tried on top of a preset."""

import shlex
from typing import Any

from experiments.accuracy.search.space import VARIED
from mnist_jax.config import ConfigError

# All candidates have the same seed.
_TRIED = {name: one for name, one in VARIED.items() if name != "seed"}


def parse(text: str) -> dict[str, Any]:
    """The settings of a candidate, given as 'augment=elastic dropout=0.1'.

    Raises:
      ConfigError: it names no setting, or a value is none of its own.
    """
    try:
        parts = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"--candidate={text}: {error}: close the quotes") from error
    settings = {}
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals or name not in _TRIED:
            raise ConfigError(
                f"--candidate={text}: {part} is no setting that can be tried: expected "
                "pairs like augment=elastic, with blanks between them"
            )
        if name in settings:
            raise ConfigError(
                f"--candidate={text}: {name} is given twice: give it once"
            )
        settings[name] = _TRIED[name].parse(value)
        _TRIED[name].check(settings[name])
    return settings


def name(settings: dict[str, Any]) -> str:
    """The inverse of `parse`, for people and for folders."""
    parts = [f"{key}={_text(value)}" for key, value in settings.items()]
    return " ".join(parts) or "as the preset"


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else f"{value}"
