"""The models by name, and the settings that they declare.

To add a model, write a file in this folder: a Flax module under `register`, whose
fields that a person may set are made by `settings.setting`. Flags, checks, help and
sweeps follow.
"""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mnist_jax.presets import PRESETS
from mnist_jax.settings import ConfigError, Setting, settings_of

MODELS: dict[str, type[nn.Module]] = {}


def register(name: str) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Enters the decorated module in `MODELS`."""

    def enter(module: type[nn.Module]) -> type[nn.Module]:
        MODELS[name] = module
        return module

    return enter


def load_all(folder: list[str]) -> None:
    """Imports every file of a package's folder; models with a preset come first."""
    for file in pkgutil.iter_modules(folder):
        importlib.import_module(f"mnist_jax.models.{file.name}")
    for name in [*PRESETS, *(n for n in MODELS if n not in PRESETS)]:
        MODELS[name] = MODELS.pop(name)


def make_model(
    name: str, num_classes: int, precision: str = "float32", **settings: Any
) -> nn.Module:
    """The module of that name, for so many classes; its own defaults where not set.

    Args:
      name: in `MODELS`.
      num_classes: of the logits.
      precision: 'float32' or 'bfloat16', the type of its matmuls' operands.
      **settings: of the module.

    Raises:
      ConfigError: the module has no field `dtype` to take the precision.
    """
    module = MODELS[name]
    if precision != "float32":
        if precision not in precisions(name):
            raise ConfigError(
                f"--precision={precision}: {name} has no field dtype, and computes in "
                "float32: give --precision=float32, or add the field to the model"
            )
        settings["dtype"] = jnp.dtype(precision)
    return module(num_classes=num_classes, **settings)


def precisions(name: str) -> tuple[str, ...]:
    """What a model's matmuls can be computed in: bfloat16 if it has a field `dtype`."""
    has_choice = "dtype" in MODELS[name].__dataclass_fields__
    return ("float32", "bfloat16") if has_choice else ("float32",)


def owned_settings() -> list[tuple[Setting, list[str]]]:
    """The settings that models declare, each with the names of those that have it."""
    found: dict[str, tuple[Setting, list[str]]] = {}
    for model, module in MODELS.items():
        for name, one in settings_of(module).items():
            found.setdefault(name, (one, []))[1].append(model)
    return list(found.values())


def default_settings(name: str) -> dict[str, Any]:
    """The settings of one model and its defaults."""
    if name not in MODELS:
        return {}
    return {n: one.default for n, one in settings_of(MODELS[name]).items()}
