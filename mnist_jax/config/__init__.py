"""A run's settings: one frozen dataclass and its checks, over `presets.py`."""

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from mnist_jax.config.presets import DIGITS_PRESETS, FAST_PRESETS, PRESETS

OPTIMIZERS = ("adam", "adamw", "rmsprop", "sgd")
SCHEDULES = ("constant", "cosine", "onecycle")
AUGMENTATIONS = ("none", "shift", "affine")
SEQUENCES = ("rows", "columns", "pixels")
PRESET_NAMES = ("default", "quick", "fast")

# Beyond these a run would not fail, but use up the machine or never end.
MAX_EPOCHS = 1_000_000
MAX_DEVICES = 1_024
MAX_UNITS = 16_384
MAX_LAYERS = 100

# Where the data lies, how often to save and on how many devices to run do not
# decide which run it is: it may be moved, and go on elsewhere.
NOT_IDENTITY = ("data_dir", "raw_dir", "checkpoint_every", "num_devices")


class ConfigError(ValueError):
    """A setting out of range; the message names the flag, its value and the remedy."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Every setting of one run; `launch.py` has a flag of the same name for each.

    The settings from `hidden_sizes` on belong to the model: None where the model
    has no such setting, or to take the model's own default.

    Raises:
      ConfigError: a value is out of its range.
    """

    model: str
    dataset: str
    preset: str = "default"
    data_dir: str | None = None
    raw_dir: str | None = None
    seed: int = 0
    epochs: int = 10
    batch_size: int = 128
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    schedule: str = "constant"
    weight_decay: float = 0.0
    clip_norm: float = 0.0  # 0: no clipping
    label_smoothing: float = 0.0
    augment: str = "none"
    validation_fraction: float = 0.1
    num_devices: int = 0  # 0: all that the batch can use
    checkpoint_every: int = 30  # chunks, each about a second of training
    hidden_sizes: tuple[int, ...] | None = None
    dropout: float | None = None
    units: int | None = None
    layers: int | None = None
    bidirectional: bool | None = None
    sequence: str | None = None

    def __post_init__(self):
        for field in dataclasses.fields(self):
            _of_kind(field.name, getattr(self, field.name), field.type)
        for name in ("model", "dataset"):
            if not getattr(self, name).isprintable():
                _refuse(name, getattr(self, name), "a name")
        if not 0 <= self.seed < 2**32:  # JAX's keys drop what is above
            _refuse("seed", self.seed, "a whole number from 0 to 4294967295")
        _between("epochs", self.epochs, 1, MAX_EPOCHS)
        _between("batch_size", self.batch_size, 1)
        _one_of("preset", self.preset, PRESET_NAMES)
        _one_of("optimizer", self.optimizer, OPTIMIZERS)
        _one_of("schedule", self.schedule, SCHEDULES)
        _one_of("augment", self.augment, AUGMENTATIONS)
        # To float32, what is outside of these is 0 or infinite.
        if not 1e-37 <= self.learning_rate <= 1e38:
            _refuse("learning_rate", self.learning_rate, "a number from 1e-37 to 1e38")
        for name in ("weight_decay", "clip_norm"):
            if not 0 <= getattr(self, name) <= 1e38:
                _refuse(name, getattr(self, name), "a number from 0 to 1e38")
        for name in ("label_smoothing", "validation_fraction"):
            _fraction(name, getattr(self, name))
        _between("num_devices", self.num_devices, 0, MAX_DEVICES)
        _between("checkpoint_every", self.checkpoint_every, 1)
        if self.hidden_sizes is not None:
            if not 1 <= len(self.hidden_sizes) <= MAX_LAYERS:
                sizes = ",".join(map(str, self.hidden_sizes))
                wanted = f"1 to {MAX_LAYERS} whole numbers, as in 512,256"
                _refuse("hidden_sizes", sizes, wanted)
            for size in self.hidden_sizes:
                _between("hidden_sizes", size, 1, MAX_UNITS)
        if self.dropout is not None:
            _fraction("dropout", self.dropout)
        if self.units is not None:
            _between("units", self.units, 1, MAX_UNITS)
        if self.layers is not None:
            _between("layers", self.layers, 1, MAX_LAYERS)
        if self.sequence is not None:
            _one_of("sequence", self.sequence, SEQUENCES)

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON knows them (tuples become lists)."""
        settings = dataclasses.asdict(self)
        if self.hidden_sizes is not None:
            settings["hidden_sizes"] = list(self.hidden_sizes)
        return settings

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "Config":
        """The inverse of `to_dict`.

        Raises:
          ConfigError: a setting is unknown, missing or out of range.
        """
        if not isinstance(settings, Mapping):
            raise _damaged(f"{type(settings).__name__} instead of names with values")
        fields = dataclasses.fields(cls)
        unknown = set(settings) - {field.name for field in fields}
        if unknown:
            names = _shown(", ".join(sorted(map(_shown, unknown))))
            raise ConfigError(
                f"unknown settings {names}: written by another version "
                "of mnist_jax; use that version, or train again with --overwrite"
            )
        for field in fields:
            if field.default is dataclasses.MISSING and field.name not in settings:
                raise _damaged(f"{field.name} is missing")
        values = dict(settings)
        if isinstance(values.get("hidden_sizes"), list):
            values["hidden_sizes"] = tuple(values["hidden_sizes"])
        try:
            return cls(**values)
        except ConfigError as error:
            raise _damaged(str(error)) from error

    def differences(self, other: "Config") -> list[str]:
        """Names of the settings that make `self` and `other` different runs."""
        return [
            field.name
            for field in dataclasses.fields(self)
            if field.name not in NOT_IDENTITY
            and getattr(self, field.name) != getattr(other, field.name)
        ]


def absolute_folder(path: str | None) -> str | None:
    """As a record keeps it: the same wherever one stands."""
    return path and str(Path(path).expanduser().absolute())


def make_config(
    model: str, dataset: str, preset: str = "default", **overrides: Any
) -> Config:
    """The preset of `model` for `dataset`, with `overrides` on top.

    Args:
      model: a name in `models.MODELS`; one without a preset gets Config's defaults.
      dataset: a resolved name ('mnist', not 'auto').
      preset: 'default' for the figures in the README, 'quick' for a first look, 'fast'
        for 99% on MNIST in the least time, which cnn alone has.
      **overrides: settings by name; None means not given.

    Raises:
      ConfigError: a value is out of its range.
    """
    settings = dict(PRESETS.get(model, {}))
    if dataset == "digits":
        settings.update(DIGITS_PRESETS.get(model, {}))
    if preset == "fast":
        if model not in FAST_PRESETS:
            names = ", ".join(FAST_PRESETS)
            raise ConfigError(
                f"--preset=fast: {model} has no such preset; give --model={names}, or "
                "--preset=quick"
            )
        settings.update(FAST_PRESETS[model])
    if preset == "quick":
        settings["epochs"] = max(1, settings.get("epochs", Config.epochs) // 5)
    settings.update({k: v for k, v in overrides.items() if v is not None})
    if isinstance(settings.get("hidden_sizes"), list):  # as a flag gives them
        settings["hidden_sizes"] = _sizes(settings["hidden_sizes"])
    return Config(model=model, dataset=dataset, preset=preset, **settings)


def _sizes(texts: list[str]) -> tuple[int, ...]:
    try:
        return tuple(int(text) for text in texts)
    except ValueError:
        _refuse("hidden_sizes", ",".join(texts), "whole numbers, as in 512,256")


def _refuse(name: str, value: Any, expected: str) -> NoReturn:
    raise ConfigError(f"--{name}={_shown(value)}: expected {expected}")


def _shown(value: Any) -> str:
    """As a person gave it, if that fits a line."""
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _damaged(what: str) -> ConfigError:
    return ConfigError(
        f"the settings are damaged ({what}): restore config.json, or train again with "
        "--overwrite"
    )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# What a value of each kind is called, and whether one is.
_KINDS: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    str: ("a text", lambda value: isinstance(value, str)),
    bool: ("true or false", lambda value: isinstance(value, bool)),
    int: ("a whole number", _is_whole),
    float: ("a number", lambda value: isinstance(value, float) or _is_whole(value)),
    tuple[int, ...]: (
        "whole numbers, as in 512,256",
        lambda value: isinstance(value, tuple) and all(map(_is_whole, value)),
    ),
}


def _of_kind(name: str, value: Any, annotation: Any) -> None:
    """Refuses what is not of a field's kind, which JSON and Python let pass."""
    if isinstance(annotation, types.UnionType):  # with None
        annotation = typing.get_args(annotation)[0]
        if value is None:
            return
    expected, is_kind = _KINDS[annotation]
    if not is_kind(value):
        _refuse(name, repr(value), expected)


def _between(name: str, value: int, least: int, most: int | None = None) -> None:
    if value < least:
        _refuse(name, value, f"a whole number of {least} or more")
    if most is not None and value > most:
        _refuse(name, value, f"a whole number of {most} or less")


def _fraction(name: str, value: float) -> None:
    if not 0 <= value < 1:
        _refuse(name, value, "a number of at least 0 and below 1")


def _one_of(name: str, value: str, names: tuple[str, ...]) -> None:
    if value not in names:
        _refuse(name, value, f"one of {', '.join(names)}")
