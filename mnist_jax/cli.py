"""How a program starts and ends: its flags, signals, and one line for an error.

`launch.py` and the studies in experiments/ are programs. Flags of settings are made
from the settings' own fields.
"""

import gc
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from absl import flags, logging

from mnist_jax import compilation_cache, exits, signals, streams
from mnist_jax.errors import EXPECTED, UserErrors
from mnist_jax.settings import ConfigError
from mnist_jax.signals import Interrupted

_BROKEN_PIPE = 141  # 128 + the number of SIGPIPE

flags.disclaim_key_flags()  # `--help` shows them as the program's own

# The settings know the models and so JAX, which takes a second to import: functions
# that need them import them.


def define_settings(
    names: Iterable[str] | None = None, **defaults: Any
) -> list[flags.FlagHolder]:
    """Defines a flag for each setting; None, the default, stands for "not given".

    Args:
      names: of settings; None for all.
      **defaults: by name, where there is another one.
    """
    from mnist_jax.config import SETTINGS

    names = SETTINGS if names is None else names
    return [_define(SETTINGS[name], defaults.get(name)) for name in names]


def _define(one: Any, default: Any) -> flags.FlagHolder:
    from mnist_jax.config import default_text

    owners = f" [{', '.join(one.models)}]" if one.models else ""
    known = default_text(one)
    # Where there is a default absl adds it.
    where = "" if default is not None or known is None else f" (default: {known})"
    text = one.help + owners + where
    if one.choices:
        return flags.DEFINE_enum(one.name, default, list(one.choices), text)
    define = {
        bool: flags.DEFINE_boolean,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        str: flags.DEFINE_string,
        tuple: flags.DEFINE_string,
    }[one.kind]
    return define(one.name, default, text)


def given_settings(holders: Iterable[flags.FlagHolder]) -> dict[str, Any]:
    """What the command line says, as `make_config` takes it.

    Raises:
      ConfigError: several numbers cannot be read as such.
    """
    from mnist_jax.config import SETTINGS

    values = {holder.name: holder.value for holder in holders}
    return {
        name: SETTINGS[name].parse(value)
        if SETTINGS[name].kind is tuple and value is not None
        else value
        for name, value in values.items()
    }


def make_main(
    body: Callable[[], None],
    go_on: str = "the same command goes on from there",
    keeps_programs: Callable[[], bool] = lambda: True,
) -> Callable[[Sequence[str]], None]:
    """The `main` that absl's `app.run` takes.

    Args:
      body: the program; reads its own flags.
      go_on: what to do after Ctrl-C or SIGTERM.
      keeps_programs: whether to use the compilation cache; asked when flags are read.
    """

    def main(argv: Sequence[str]) -> None:
        signals.listen()
        if not flags.FLAGS["verbosity"].present:
            # The libraries report each of their steps at level INFO, absl's default.
            logging.set_verbosity(logging.WARNING)
        streams.take_any_text()
        try:
            if len(argv) > 1:
                raise ConfigError(f"{argv[1]!r} is not a flag: write --name=value")
            if keeps_programs():
                compilation_cache.start()
            with signals.advice(go_on):
                body()
            streams.flush()
            gc.freeze()  # Python's last collection would walk all that was imported
        except BrokenPipeError:  # as `| head` leaves it: no news to anyone
            streams.drop_output()
            exits.hard_exit(_BROKEN_PIPE)
        except EXPECTED as error:
            _end(1, "\n".join(f"error: {line}" for line in _lines(error)))
        except Interrupted as stop:
            _end(128 + stop.signal_number, f"{stop}; {go_on}")
        except Exception:
            if not exits.is_in_group():
                raise
            _end(1, traceback.format_exc())

    return main


def _lines(error: Exception) -> list[str]:
    """Of one error or several, and of an output that takes no more."""
    errors = list(error.errors) if isinstance(error, UserErrors) else [error]
    try:
        streams.flush()  # what was done before the error came
    except BrokenPipeError:
        pass
    except OSError as full:
        errors.append(full)
    lines = [_one_line(one) for one in errors]
    return list(dict.fromkeys(lines))  # an output may fail twice


def _one_line(error: Exception) -> str:
    """The message; what the system says of a file, with the file first."""
    if isinstance(error, OSError) and error.strerror:
        where = error.filename or "the output"
        remedy = "make room there, or give another place"
        return f"{where}: {error.strerror}: {remedy}"
    return " ".join(str(error).split())


def _end(status: int, text: str) -> NoReturn:
    print(text, file=sys.stderr, flush=True)
    exits.hard_exit(status)
