"""Where a study runs: the processor, and the repository."""

import platform
from pathlib import Path

ROOT = Path(__file__).parents[2]  # where `python -m experiments...` finds its modules


def cpu_name() -> str:
    """The processor as Linux names it; elsewhere its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [x.partition(":")[2].strip() for x in lines if x.startswith("model name")]
    return names[0] if names else platform.machine()
