"""A setting is one line: its type, default, range or choices, help and owners.

A field of `config.Config` or of a Flax module that is made by `setting` carries all
that flags, checks, `--help`, the space of a sweep and the table in docs/settings.md
need to know of it.
"""

import dataclasses
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from mnist_jax.errors import UserError

_KEY = "mnist_jax.setting"


class ConfigError(UserError):
    """A setting out of range; the message names the flag, its value and the remedy."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is known of one setting.

    Attributes:
      name: of the field and of the flag.
      kind: str, int, float, bool, or tuple for several whole numbers.
      default: None where the preset or the model decides.
      help: one line, with the unit.
      low, high: bounds of a number, or of each of several; None for no bound.
      below: a bound that is itself excluded.
      choices: of a text.
      is_identity: whether it decides which run it is.
      models: those that have it; None for every model.
    """

    name: str
    kind: type
    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    below: float | None = None
    choices: tuple[str, ...] | None = None
    is_identity: bool = True
    models: tuple[str, ...] | None = None

    @property
    def expected(self) -> str:
        """What a value has to be, in words."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.kind is bool:
            return "true or false"
        if self.kind is str:
            return "a text that can be printed"
        if self.kind is tuple:
            return f"whole numbers{self._range}, with commas, as in 512,256"
        return ("a whole number" if self.kind is int else "a number") + self._range

    @property
    def _range(self) -> str:
        low, high = self.low, self.high
        if self.below is not None:
            return f" of at least {low:g} and below {self.below:g}"
        if high is not None:
            exact = str if self.kind is not float else "{:g}".format
            return f" from {exact(low)} to {exact(high)}"
        return "" if low is None else f" of {low:g} or more"

    def check(self, value: Any) -> None:
        """Raises ConfigError where `value` is of another kind or out of range."""
        if not self._is_kind(value):
            self.refuse(repr(value))
        if self.choices and value not in self.choices:
            self.refuse(value)
        if self.kind is str and not value.isprintable():
            self.refuse(repr(value))
        if self.kind in (int, float, tuple):
            for number in value if self.kind is tuple else (value,):
                if not self._is_inside(number):
                    self.refuse(
                        ",".join(map(str, value)) if self.kind is tuple else value
                    )

    def parse(self, text: str) -> Any:
        """A value as a flag or `--vary` gives it; several whole numbers as 512-256."""
        try:
            if self.kind is tuple:
                return tuple(int(part) for part in text.replace("-", ",").split(","))
            if self.kind is bool:
                return bool(("false", "true").index(text))
            return self.kind(text)
        except ValueError:
            self.refuse(text)

    def refuse(self, value: Any) -> NoReturn:
        raise ConfigError(f"--{self.name}={_shorten(value)}: expected {self.expected}")

    def _is_kind(self, value: Any) -> bool:
        if self.kind is tuple:
            return isinstance(value, tuple) and value and all(map(is_whole, value))
        if self.kind is float:
            return is_number(value)
        return is_whole(value) if self.kind is int else isinstance(value, self.kind)

    def _is_inside(self, number: float) -> bool:
        # In this sense, so that NaN is outside.
        return (
            (self.low is None or number >= self.low)
            and (self.high is None or number <= self.high)
            and (self.below is None or number < self.below)
        )


def setting(default: Any = dataclasses.MISSING, help: str = "", **facts: Any) -> Any:
    """A dataclass field that is a setting.

    Args:
      default: of the field.
      help: one line.
      **facts: further fields of `Setting`; `choices` may be a function, which is
        called when the settings are read.
    """
    return dataclasses.field(default=default, metadata={_KEY: {"help": help, **facts}})


def settings_of(cls: type) -> dict[str, Setting]:
    """The settings among the fields of a dataclass, by name, in their order."""
    return {
        field.name: _from_field(field)
        for field in dataclasses.fields(cls)
        if _KEY in field.metadata
    }


def optional_field(one: Setting, models: Sequence[str]) -> tuple[str, Any, Any]:
    """A model's setting as `dataclasses.make_dataclass` takes it; None if not given."""
    names = ("low", "high", "below", "choices", "is_identity")
    facts = {name: getattr(one, name) for name in names}
    field = setting(None, one.help, models=tuple(models), **facts)
    kind = tuple[int, ...] if one.kind is tuple else one.kind
    return one.name, kind | None, field


def _from_field(field: dataclasses.Field) -> Setting:
    facts = dict(field.metadata[_KEY])
    if isinstance(facts.get("choices"), Callable):
        facts["choices"] = tuple(facts["choices"]())
    default = None if field.default is dataclasses.MISSING else field.default
    return Setting(field.name, _kind(field.type), default, **facts)


def _kind(annotation: Any) -> type:
    """str, int, float, bool or tuple, of one like `tuple[int, ...] | None`."""
    if isinstance(annotation, types.UnionType):
        annotation = typing.get_args(annotation)[0]
    return typing.get_origin(annotation) or annotation


def is_whole(value: Any) -> bool:
    """Whether it is an int; a bool, which Python counts among them, is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is a float or `is_whole`."""
    return isinstance(value, float) or is_whole(value)


def _shorten(value: Any) -> str:
    """As a person gave it, if that fits a line."""
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
