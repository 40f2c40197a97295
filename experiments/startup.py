"""How long does `launch.py` take from its start to the end of the first chunk?

    python experiments/startup.py --dataset=mnist

Cold is with an empty compilation cache, warm is the same command once more. Each start
is a process of its own that ends at the first sign of progress; the data set must be
prepared (any earlier run does it). Prints the medians over --rounds as Markdown and
writes startup.md under --workdir. Takes about a minute on two cores.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags

from mnist_jax import models, records

LAUNCH = Path(__file__).parent.parent / "launch.py"

# launch.py as it is, but for an end at the first chunk.
CODE = """
import os, runpy, sys
from mnist_jax.progress import Progress

def end(*arguments):
    print("first chunk", flush=True)
    os._exit(0)

Progress.update = end
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def start_once(model: str, dataset: str, cache: str) -> float:
    """Seconds from the start of the process to the end of its first chunk."""
    with tempfile.TemporaryDirectory() as workdir:
        began = time.perf_counter()
        subprocess.run(
            [
                sys.executable,
                "-c",
                f"import sys; sys.argv[0] = {str(LAUNCH)!r}{CODE}",
                f"--model={model}",
                f"--dataset={dataset}",
                f"--workdir={workdir}",
            ],
            env={**os.environ, "XDG_CACHE_HOME": cache},
            stdout=subprocess.PIPE,
            check=True,
        )
        return time.perf_counter() - began


def measure(model: str, dataset: str, rounds: int) -> tuple[float, float]:
    """Medians of (cold, warm) starts in seconds."""
    cold, warm = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            cold.append(start_once(model, dataset, cache))
            warm.append(start_once(model, dataset, cache))
    return statistics.median(cold), statistics.median(warm)


def main(argv: list[str]) -> None:
    del argv
    lines = ["| model | cold | warm |", "| --- | ---: | ---: |"]
    for model in flags.FLAGS.models:
        cold, warm = measure(model, flags.FLAGS.dataset, flags.FLAGS.rounds)
        lines.append(f"| {model} | {cold:.1f} s | {warm:.1f} s |")
        print(lines[-1], file=sys.stderr, flush=True)
    table = "\n".join(lines) + "\n"
    path = Path(flags.FLAGS.workdir) / "startup.md"
    records.write_atomically(path, table.encode())
    print(table)


if __name__ == "__main__":
    flags.DEFINE_list("models", list(models.MODELS), "models to start")
    flags.DEFINE_string("dataset", "mnist", "a prepared data set")
    flags.DEFINE_integer("rounds", 3, "starts of each kind", lower_bound=1)
    flags.DEFINE_string("workdir", "runs/startup", "where to write")
    app.run(main)
