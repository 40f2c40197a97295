"""The compilers for machines that are not there, each in an environment of its own."""

from typing import Any

from absl import flags

from experiments.common import machine
from experiments.speed.accelerator_parts import targets
from experiments.speed.frameworks.processes import find_interpreter
from mnist_jax.errors import UserError

flags.disclaim_key_flags()  # `--help` shows them as the study's own

_MODULE = "experiments.speed.accelerator_parts.compilation"


class CompilationError(UserError):
    """A program that cannot be compiled."""


def define_flags() -> None:
    """--tpu_python and --cuda_python."""
    for name, modules in targets.MODULES.items():
        flags.DEFINE_string(f"{name}_python", None, f"Python that has {modules}")


def find(given: flags.FlagValues) -> dict[str, str]:
    """The interpreters that were given, by platform.

    Raises:
      BenchmarkError: one cannot start, or lacks a module.
    """
    return {
        platform: find_interpreter(
            f"{platform}_python",
            given[f"{platform}_python"].value,
            modules,
            targets.environment(),
        )
        for platform, modules in targets.MODULES.items()
        if given[f"{platform}_python"].value
    }


def measure(
    python: str, target: str, model: str, precision: str, batch_size: int
) -> dict[str, Any]:
    """A row of `compile_for_accelerators`, by an interpreter that has the compiler.

    Raises:
      CompilationError: it failed.
    """
    given = (target, model, precision, str(batch_size))
    return machine.measure_in_process(
        [python, "-m", _MODULE, *given],
        " ".join(given),
        targets.environment(),
        CompilationError,
    )
