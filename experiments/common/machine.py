"""Where a study runs: the processor, the repository, processes of its own."""

import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mnist_jax import signals

ROOT = Path(__file__).parents[2]  # where `python -m experiments...` finds its modules


def cpu_name() -> str:
    """The processor as Linux names it; elsewhere its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [x.partition(":")[2].strip() for x in lines if x.startswith("model name")]
    return names[0] if names else platform.machine()


def run_process(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess:
    """`subprocess.run` of text, of a process that ends when this one is stopped."""
    with subprocess.Popen(command, text=True, **options) as process:
        with signals.undone_by(process.kill):
            output, errors = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, output, errors)
