"""All settings of a run in one frozen dataclass, and what presets make of them."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnist_jax import data, models
from mnist_jax.presets import DIGITS_PRESETS, LARGE_DATA_PRESETS, PRESETS
from mnist_jax.run_settings import RunSettings
from mnist_jax.settings import ConfigError, Setting, optional_field, settings_of


@dataclasses.dataclass(frozen=True)
class _Checked(RunSettings):
    """What a config does, whatever its settings."""

    def __post_init__(self):
        for one in SETTINGS.values():
            value = getattr(self, one.name)
            if value is None and one.default is None and one.name not in _REQUIRED:
                continue
            one.check(value)
            if one.models is not None and self.model not in one.models:
                owned = [
                    x.name for x in SETTINGS.values() if self.model in (x.models or ())
                ]
                names = ", ".join(f"--{name}" for name in owned) or "none"
                raise ConfigError(
                    f"--{one.name} is not a setting of --model={self.model}: leave it "
                    f"out (its own settings: {names})"
                )

    def model_settings(self) -> dict[str, Any]:
        """Those settings that belong to the model, as far as they are given."""
        values = {n: getattr(self, n) for n, x in SETTINGS.items() if x.models}
        return {name: value for name, value in values.items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON knows them (tuples become lists)."""
        settings = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "Config":
        """The inverse of `to_dict`; settings that are missing have their defaults.

        Raises:
          ConfigError: a setting is unknown or out of range.
        """
        if unknown := sorted(set(settings) - set(SETTINGS)):
            raise ConfigError(
                f"unknown settings {', '.join(unknown)!r}: written by another version "
                "of mnist_jax; use that version, or train again with --overwrite"
            )
        try:
            missing = [name for name in _REQUIRED if name not in settings]
            if missing:
                raise ConfigError(f"{', '.join(missing)} missing")
            return cls(**{k: _as_tuple(v) for k, v in settings.items()})
        except ConfigError as error:
            raise ConfigError(
                f"the settings are damaged ({error}): restore config.json, or train "
                "again with --overwrite"
            ) from error

    def identity(self) -> dict[str, Any]:
        """The settings that decide which run it is, but for those at their defaults.

        So a setting that a later version adds leaves the runs that there are as they
        are, if its default is what was done before.
        """
        own = models.default_settings(self.model)
        return {
            name: value
            for name, value in decisive(self.to_dict()).items()
            if value is not None
            and value != _as_list(own.get(name, SETTINGS[name].default))
        }

    def differences(self, other: "Config") -> list[str]:
        """Names of the settings that make `self` and `other` different runs."""
        one, two = self.identity(), other.identity()
        return [name for name in SETTINGS if one.get(name) != two.get(name)]


# Every setting of a run: those above, and those that the models declare.
Config = dataclasses.make_dataclass(
    "Config",
    [optional_field(*owned) for owned in models.owned_settings()],
    bases=(_Checked,),
    frozen=True,
    namespace={"__module__": __name__, "__doc__": "Every setting of one run."},
)
SETTINGS = settings_of(Config)
_REQUIRED = ("model", "dataset")


def decisive(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those that decide which run it is, by name; also what is no setting."""
    return {
        name: value
        for name, value in settings.items()
        if name not in SETTINGS or SETTINGS[name].is_identity
    }


def make_config(
    model: str, dataset: str, preset: str = "default", **overrides: Any
) -> Config:
    """The preset of `model` for `dataset`, with `overrides` on top.

    Args:
      model: a name in `models.MODELS`; one without a preset has Config's defaults.
      dataset: a name in `data.NAMES`.
      preset: a name in `run_settings.PRESET_NAMES`.
      **overrides: settings by name; None means not given.

    Raises:
      ConfigError: a value is out of its range, or there is no such preset.
      DatasetError: see `data.check_given`.
    """
    data.check_given(dataset, overrides.get("raw_dir"), overrides.get("preprocess"))
    is_small = dataset in data.DATASETS and data.DATASETS[dataset].is_small
    settings = dict(PRESETS.get(model, {}))
    if is_small:
        settings.update(DIGITS_PRESETS.get(model, {}))
    if preset in LARGE_DATA_PRESETS:
        own = LARGE_DATA_PRESETS[preset]
        if model not in own or is_small:
            raise ConfigError(
                f"--preset={preset}: {model} has no such preset for {dataset}: give "
                f"--model={','.join(own)} and a data set of 60,000 images, or "
                "--preset=quick"
            )
        settings.update(own[model])
    if preset == "quick":
        settings["epochs"] = max(1, settings.get("epochs", Config.epochs) // 5)
    settings |= {k: _as_tuple(v) for k, v in overrides.items() if v is not None}
    return Config(model=model, dataset=dataset, preset=preset, **settings)


def absolute_folder(path: str | None) -> str | None:
    """As a record keeps it: the same wherever one stands."""
    return path and str(Path(path).expanduser().absolute())


def absolute_folders(paths: str | None) -> str | None:
    """`absolute_folder` of several, with commas."""
    return paths and ",".join(map(absolute_folder, paths.split(",")))


def default_text(one: Setting) -> str | None:
    """What a setting is where it is not given, in words; None for nothing."""
    always = {name for preset in PRESETS.values() for name in preset}
    if one.name in always:
        return "preset"
    others = (DIGITS_PRESETS, *LARGE_DATA_PRESETS.values())
    if any(one.name in preset for presets in others for preset in presets.values()):
        return f"{one.default}, some presets another"
    return None if one.default is None else f"{one.default}"


def settings_table() -> str:
    """The settings as a table in Markdown, which docs/settings.md holds."""
    lines = ["| flag | values | default | of |", "| --- | --- | --- | --- |"]
    for one in SETTINGS.values():
        values = " ".join(one.choices) if one.choices else one.expected
        default = default_text(one) or ""
        of = ", ".join(one.models) if one.models else ""
        lines.append(f"| `--{one.name}`: {one.help} | {values} | {default} | {of} |")
    return "\n".join(lines) + "\n"


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
