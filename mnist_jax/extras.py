"""Libraries that are optional extras of the installation."""

import importlib.util

from mnist_jax.settings import ConfigError


def check(what: str, extra: str, *libraries: str, remedy: str = "") -> None:
    """Checks that what needs an extra has it.

    Args:
      what: a flag, as --mode=export.
      extra: of setup.py, that installs the libraries.
      *libraries: the modules needed.
      remedy: what else a person can do.

    Raises:
      ConfigError: a library is not installed.
    """
    if missing := [name for name in libraries if not is_installed(name)]:
        otherwise = f", or {remedy}" if remedy else ""
        raise ConfigError(
            f"{what} needs {' and '.join(missing)}: pip install -e '.[{extra}]'"
            f"{otherwise}"
        )


def is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
