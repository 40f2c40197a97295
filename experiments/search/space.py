"""What a search varies: settings with their values, and trials drawn from them."""

import dataclasses
import itertools
import math
import types
import typing
from collections.abc import Sequence
from typing import Any

import numpy as np

from mnist_jax.config import Config, ConfigError


class SpaceError(ConfigError):
    """A setting of the search is wrong; the message is one line with the remedy."""


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, drawn evenly on a logarithmic or a linear scale."""

    low: float
    high: float

    @property
    def is_logarithmic(self) -> bool:
        return self.low > 0 and self.high / self.low >= 10

    def draw(self, rng: np.random.Generator) -> float:
        if self.is_logarithmic:
            return math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        return rng.uniform(self.low, self.high)


@dataclasses.dataclass(frozen=True)
class Choices:
    """One of some values."""

    values: tuple[Any, ...]

    def draw(self, rng: np.random.Generator) -> Any:
        return self.values[rng.integers(len(self.values))]


Space = dict[str, Range | Choices]


def parse(texts: Sequence[str]) -> Space:
    """The space of flags like learning_rate=1e-4..1e-1 and optimizer=adam,sgd.

    Raises:
      SpaceError: no setting of that name, or values that are not of its kind.
    """
    space: Space = {}
    for text in texts:
        name, _, values = text.partition("=")
        if name not in _KINDS:
            known = ", ".join(_KINDS)
            raise SpaceError(
                f"--vary={text}: expected one of {known}, then = and values"
            )
        if name in space:
            raise SpaceError(f"--vary={text}: {name} is given twice; give it once")
        try:
            space[name] = _values(values, _KINDS[name])
        except ValueError:
            raise SpaceError(
                f"--vary={text}: expected values like {_EXAMPLES[_KINDS[name]]}"
            ) from None
    return space


def draw(space: Space, num_trials: int, seed: int) -> list[dict[str, Any]]:
    """Trials at random; the first ones do not depend on how many follow."""
    rng = np.random.default_rng(seed)
    return [
        {name: values.draw(rng) for name, values in space.items()}
        for _ in range(num_trials)
    ]


def grid(space: Space) -> list[dict[str, Any]]:
    """All combinations of the choices.

    Raises:
      SpaceError: a setting has a range, which no grid exhausts.
    """
    for name, values in space.items():
        if isinstance(values, Range):
            raise SpaceError(
                f"--vary={name}={values.low:g}..{values.high:g}: a range has no end of "
                "values; give some with commas, or a number of --trials"
            )
    combinations = itertools.product(*(choices.values for choices in space.values()))
    return [dict(zip(space, values, strict=True)) for values in combinations]


def _kind(annotation: Any) -> type:
    """str, int, float, bool or tuple, of one like `tuple[int, ...] | None`."""
    if isinstance(annotation, types.UnionType):
        annotation = typing.get_args(annotation)[0]
    return typing.get_origin(annotation) or annotation


def _values(text: str, kind: type) -> Range | Choices:
    if ".." in text and kind in (int, float):
        low, high = (float(x) for x in text.split(".."))
        if kind is int or not low < high or not math.isfinite(low + high):
            raise ValueError
        return Range(low, high)
    return Choices(tuple(_value(x, kind) for x in text.split(",")))


def _value(text: str, kind: type) -> Any:
    if not text:
        raise ValueError
    if kind is tuple:  # 512-256
        return tuple(int(x) for x in text.split("-"))
    if kind is bool:
        return bool(("false", "true").index(text))
    return kind(text)


_FIXED = ("model", "dataset", "preset", "data_dir", "raw_dir", "epochs",
          "num_devices", "checkpoint_every", "validation_fraction")  # fmt: skip
_KINDS = {
    f.name: _kind(f.type) for f in dataclasses.fields(Config) if f.name not in _FIXED
}
_EXAMPLES = {
    float: "1e-4..1e-1 or 0.1,0.2",
    int: "32,64,128",
    str: "adam,sgd",
    bool: "true,false",
    tuple: "128,512-256",
}
