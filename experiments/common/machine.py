"""Where a study runs: the processor, the repository, processes of its own."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mnist_jax import signals
from mnist_jax.errors import UserError

ROOT = Path(__file__).parents[2]  # where `python -m experiments...` finds its modules


def cpu_name() -> str:
    """The processor as Linux names it; elsewhere its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [x.partition(":")[2].strip() for x in lines if x.startswith("model name")]
    return names[0] if names else platform.machine()


def environment_without_cache() -> dict[str, str]:
    """This process's, but for the variable that has JAX itself keep programs."""
    return {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}


def run_process(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess:
    """`subprocess.run` of text, of a process that ends when this one is stopped."""
    with subprocess.Popen(command, text=True, **options) as process:
        with signals.undone_by(process.kill):
            output, errors = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def measure_in_process(
    command: Sequence[str], what: Any, env: Mapping[str, str], error: type[UserError]
) -> dict[str, Any]:
    """The JSON that a measurement in a process of its own prints as its last line.

    Args:
      command: from the repository's root.
      what: is measured, for the message.
      env: of the process.
      error: raised where it fails, with the last line that it said.
    """
    # Else JAX adds lines of its own after the error.
    env = {**env, "JAX_TRACEBACK_FILTERING": "off"}
    done = run_process(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise error(f"{what} ended with status {done.returncode}: {said[-1]}")
    return json.loads(done.stdout.splitlines()[-1])
