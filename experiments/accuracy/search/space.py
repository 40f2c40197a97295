"""What a search varies: settings with their values, and trials drawn from them."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mnist_jax.config import SETTINGS, ConfigError
from mnist_jax.settings import Setting

# What all trials of a search share; they are compared after as many epochs on the same
# validation part, and have no teacher.
_SHARED = (
    "model", "dataset", "preset", "preprocess", "epochs", "validation_fraction",
    "validation_fold", "validation_by", "distill_weight", "temperature",
)  # fmt: skip
# What can be varied.
VARIED = {
    name: setting
    for name, setting in SETTINGS.items()
    if setting.is_identity and name not in _SHARED
}


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
      SpaceError: no setting of that name, or values that it cannot have.
    """
    space: Space = {}
    for text in texts:
        name, _, values = text.partition("=")
        if name not in VARIED:
            known = ", ".join(VARIED)
            raise SpaceError(
                f"--vary={text}: expected one of {known}, then = and values"
            )
        if name in space:
            raise SpaceError(f"--vary={text}: {name} is given twice; give it once")
        try:
            space[name] = _values(values, VARIED[name])
        except ConfigError:
            raise SpaceError(f"--vary={text}: {_expected(VARIED[name])}") from None
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


def _values(text: str, setting: Setting) -> Range | Choices:
    if ".." in text and setting.kind is float:
        low, _, high = text.partition("..")
        found = Range(_value(low, setting), _value(high, setting))
        if found.low >= found.high:
            setting.refuse(text)
        return found
    return Choices(tuple(_value(part, setting) for part in text.split(",")))


def _value(text: str, setting: Setting) -> Any:
    value = setting.parse(text)
    setting.check(value)
    return value


def _expected(setting: Setting) -> str:
    if setting.kind is tuple:
        return "expected values with commas, each like 512-256"
    ranges = ", or low..high" if setting.kind is float else ""
    return f"expected values with commas{ranges}; each is {setting.expected}"
