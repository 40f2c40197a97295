"""How long does `launch.py` take from its start to the end of the first chunk?

    python -m experiments.speed.startup --dataset=mnist

Cold is with an empty compilation cache; warm is the same command once more. Each start
is a process of its own that ends with the first chunk; the data set is prepared before.

Writes startup.json and .md, medians over --rounds, under --workdir. Takes a minute on
two cores.

Result, cold and warm, on 2 cores of an AMD EPYC: linear 3.0 and 2.5 s, mlp 4.6 and 2.8,
cnn 8.0 and 3.7, rnn 5.0 and 3.0, lstm 5.8 and 3.4, gru 5.0 and 3.0.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from experiments.common import study_flags
from experiments.common.machine import ROOT, cpu_name, run_process
from experiments.common.report import write_all
from experiments.common.table import Table, column
from mnist_jax import cli, data, models, signals
from mnist_jax.errors import UserError

# launch.py as it is, but for an end at the first chunk.
_CODE = """
import os, runpy, sys
from mnist_jax.progress import Progress

def end(*arguments):
    os._exit(0)

Progress.update = end
sys.argv[0] = "launch.py"
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class StartupError(UserError):
    """launch.py did not start."""


def start_once(arguments: Sequence[str], cache: Path) -> float:
    """Seconds from the start of the process to the end of its first chunk.

    Args:
      arguments: of launch.py.
      cache: folder of the compilation cache.

    Raises:
      StartupError: launch.py failed.
    """
    with signals.temporary_folder() as workdir:
        began = time.perf_counter()
        done = run_process(
            [sys.executable, "-c", _CODE, *arguments, f"--workdir={workdir}"],
            cwd=ROOT,
            env={**os.environ, "XDG_CACHE_HOME": str(cache)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        seconds = time.perf_counter() - began
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise StartupError(f"launch.py {' '.join(arguments)}: {said[-1]}")
    return seconds


def measure(arguments: Sequence[str], rounds: int) -> dict[str, list[float]]:
    """Seconds of 'cold' and 'warm' starts of launch.py, of each round."""
    seconds: dict[str, list[float]] = {"cold": [], "warm": []}
    for _ in range(rounds):
        with signals.temporary_folder() as cache:
            for kind in ("cold", "warm"):
                seconds[kind].append(start_once(arguments, cache))
    return seconds


def make_table(rows: Sequence[dict[str, Any]]) -> Table:
    medians = [
        row | {kind: statistics.median(row[kind]) for kind in ("cold", "warm")}
        for row in rows
    ]
    heads = [column("model", "model")]
    heads += [column(f"{kind}, s", kind, "{:.1f}") for kind in ("cold", "warm")]
    return Table(heads, medians)


def define_flags() -> None:
    flags.DEFINE_list("models", list(models.MODELS), "models to start")
    cli.define_settings(("dataset",), dataset="auto")
    flags.DEFINE_integer("rounds", 3, "starts of each kind", lower_bound=1)
    study_flags.define_folders("runs/startup")


def study() -> None:
    given = flags.FLAGS
    names = study_flags.names("models", given.models, list(models.MODELS))
    folders = study_flags.folders(given)
    workdir = study_flags.workdir(given) or Path("runs/startup")
    dataset = data.prepare(given.dataset, **folders)
    own = [f"--{key}={path}" for key, path in folders.items() if path]
    rows = []
    for model in names:
        arguments = [f"--model={model}", f"--dataset={dataset}", *own]
        rows.append({"model": model, **measure(arguments, given.rounds)})
        print("  ".join(make_table(rows).cells()[-1]), file=sys.stderr, flush=True)
    content, table = (
        {"cpu": cpu_name(), "dataset": dataset, "rows": rows},
        make_table(rows),
    )
    files = {"startup.json": content, "startup.md": table.to_markdown()}
    write_all(workdir, files)
    print(table.to_text())


main = cli.make_main(study, "nothing was written")

if __name__ == "__main__":
    define_flags()
    app.run(main)
