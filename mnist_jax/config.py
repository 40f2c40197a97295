"""All settings of a run: one line each, in one frozen dataclass."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnist_jax import augment, data, images, models, optim
from mnist_jax.presets import DIGITS_PRESETS, FAST_PRESETS, PRESETS
from mnist_jax.settings import ConfigError, optional_field, setting, settings_of

PRESET_NAMES = ("default", "quick", "fast")


@dataclasses.dataclass(frozen=True)
class _RunSettings:
    """What every run has."""

    model: str = setting(help="what to train", choices=lambda: models.MODELS)
    dataset: str = setting(
        help="auto is mnist or, where that cannot be had, the embedded digits; folder "
        "is one's own images",
        choices=lambda: data.NAMES,
    )
    preset: str = setting(
        "default",
        "where settings that are not given come from: quick has a fifth of the epochs; "
        "fast, for cnn on 60,000 images, is 99% on MNIST in the least time",
        choices=PRESET_NAMES,
    )
    data_dir: str | None = setting(
        None,
        "folder of prepared data sets (TFDS_DATA_DIR, else ~/tensorflow_datasets)",
        is_identity=False,
    )
    raw_dir: str | None = setting(
        None,
        "folder of the data set's four IDX files, gzipped or not (for mnist: "
        "MNIST_RAW_DIR); of folder: with a sub-folder of image files for each class",
        is_identity=False,
    )
    preprocess: str = setting(
        "strokes",
        "of folder: strokes are found and brought to MNIST's form; resize keeps the "
        "whole picture, for what is no drawing",
        choices=lambda: images.READERS,
    )
    # Which weights these are is part of the run, as `records.Facts` keep their digest.
    init_from: str | None = setting(
        None,
        "folder of another run of the same model, whose weights to start from; for "
        "another number of classes the last layer is new",
        is_identity=False,
    )
    # JAX's keys drop what is above 32 bits.
    seed: int = setting(0, "of all that is random", low=0, high=2**32 - 1)
    # Beyond some of these bounds a run would not fail, but never end or use up the
    # machine.
    epochs: int = setting(10, "passes over the training images", low=1, high=1_000_000)
    batch_size: int = setting(128, "images per step, over all devices", low=1)
    optimizer: str = setting(
        "adam", "update rule; sgd has momentum 0.9", choices=lambda: optim.OPTIMIZERS
    )
    # To float32, what is outside of these is 0 or infinite.
    learning_rate: float = setting(
        1e-3, "highest rate of the schedule", low=1e-37, high=1e38
    )
    schedule: str = setting(
        "constant", "the rate over the run", choices=lambda: optim.SCHEDULES
    )
    weight_decay: float = setting(
        0.0, "on kernels; decoupled with adamw, else L2", low=0, high=1e38
    )
    clip_norm: float = setting(
        0.0, "largest global norm of the gradient, 0 for any", low=0, high=1e38
    )
    label_smoothing: float = setting(
        0.0, "share of each target spread over all classes", low=0, below=1
    )
    augment: str = setting(
        "none",
        "random changes to training images: shift by 2 pixels; affine also rotates by "
        "10 degrees, scales and shears by 10%",
        choices=lambda: augment.AUGMENTATIONS,
    )
    precision: str = setting(
        "float32",
        "operands of matmuls and convolutions; sums, params and the update are float32",
        choices=("float32", "bfloat16"),
    )
    validation_fraction: float = setting(
        0.1, "share of the training images held out, stratified", low=0, below=1
    )
    num_devices: int = setting(
        0,
        "devices to share each batch, 0 for all that it can use",
        low=0,
        high=1_024,
        is_identity=False,
    )
    checkpoint_every: int = setting(
        30, "seconds of training between saves", low=0, is_identity=False
    )

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
            for name, value in self.to_dict().items()
            if SETTINGS[name].is_identity
            and value is not None
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
    bases=(_RunSettings,),
    frozen=True,
    namespace={"__module__": __name__, "__doc__": "Every setting of one run."},
)
SETTINGS = settings_of(Config)
# Those that presets decide, where they are not given.
PRESET_SETTINGS = {name for preset in PRESETS.values() for name in preset}
_REQUIRED = ("model", "dataset")


def make_config(
    model: str, dataset: str, preset: str = "default", **overrides: Any
) -> Config:
    """The preset of `model` for `dataset`, with `overrides` on top.

    Args:
      model: a name in `models.MODELS`; one without a preset has Config's defaults.
      dataset: a name in `data.NAMES`.
      preset: a name in `PRESET_NAMES`.
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
    if preset == "fast":
        if model not in FAST_PRESETS or is_small:
            raise ConfigError(
                f"--preset=fast: {model} has no such preset for {dataset}: give "
                f"--model={','.join(FAST_PRESETS)} and a data set of 60,000 images, or "
                "--preset=quick"
            )
        settings.update(FAST_PRESETS[model])
    if preset == "quick":
        settings["epochs"] = max(1, settings.get("epochs", Config.epochs) // 5)
    settings |= {k: _as_tuple(v) for k, v in overrides.items() if v is not None}
    return Config(model=model, dataset=dataset, preset=preset, **settings)


def absolute_folder(path: str | None) -> str | None:
    """As a record keeps it: the same wherever one stands."""
    return path and str(Path(path).expanduser().absolute())


def settings_table() -> str:
    """The settings as a table in Markdown, which docs/settings.md holds."""
    lines = ["| flag | values | default | of |", "| --- | --- | --- | --- |"]
    for one in SETTINGS.values():
        values = " ".join(one.choices) if one.choices else one.expected
        default = "preset" if one.name in PRESET_SETTINGS else one.default
        of = ", ".join(one.models) if one.models else ""
        default = "" if default is None else f"{default}"
        lines.append(f"| `--{one.name}`: {one.help} | {values} | {default} | {of} |")
    return "\n".join(lines) + "\n"


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
