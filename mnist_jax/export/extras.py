"""The libraries that exporting takes, all of them optional extras."""

import importlib.util

from mnist_jax.settings import ConfigError

_NEEDED = ("flatbuffers", "safetensors")


def check() -> None:
    """Raises ConfigError where what every export needs is not installed."""
    if missing := [name for name in _NEEDED if not is_installed(name)]:
        raise ConfigError(
            f"--mode=export needs {' and '.join(missing)}: pip install -e '.[export]'"
        )


def is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
