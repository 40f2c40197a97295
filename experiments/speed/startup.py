"""How long does `launch.py` take from its start to the end of the first chunk?

    python -m experiments.speed.startup --dataset=mnist
        --models=linear,mlp,cnn,rnn,lstm,gru

Cold is with an empty compilation cache; warm is the same command once more. Each start
is a process of its own that ends with the first chunk; the data set is prepared before.

Writes startup.json and .md, medians over --rounds, under --workdir. Takes three
minutes on two cores.

Result, cold and warm, on 2 cores of an AMD EPYC: linear 3.0 and 2.5 s, mlp 4.6 and 2.8,
cnn 8.0 and 3.7, rnn 5.0 and 3.0, lstm 5.8 and 3.4, gru 5.0 and 3.0.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from experiments.common.machine import ROOT, environment_without_cache, run_process
from experiments.common.table import Table, column
from experiments.speed import per_model
from mnist_jax import cli, signals
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
            env=environment_without_cache() | {"XDG_CACHE_HOME": str(cache)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        seconds = time.perf_counter() - began
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise StartupError(f"launch.py {' '.join(arguments)}: {said[-1]}")
    return seconds


def measure(model: str, dataset: str, **folders: str | None) -> dict[str, Any]:
    """A row: seconds of 'cold' and 'warm' starts of launch.py, of each round."""
    own = [f"--{key}={path}" for key, path in folders.items() if path]
    arguments = [f"--model={model}", f"--dataset={dataset}", *own]
    seconds: dict[str, list[float]] = {"cold": [], "warm": []}
    for _ in range(flags.FLAGS.rounds):
        with signals.temporary_folder() as cache:
            for kind in ("cold", "warm"):
                seconds[kind].append(start_once(arguments, cache))
    return {"model": model, **seconds}


def make_table(rows: Sequence[dict[str, Any]]) -> Table:
    medians = [
        row | {kind: statistics.median(row[kind]) for kind in ("cold", "warm")}
        for row in rows
    ]
    heads = [column("model", "model")]
    heads += [column(f"{kind}, s", kind, "{:.1f}") for kind in ("cold", "warm")]
    return Table(heads, medians)


def define_flags() -> None:
    per_model.define_flags("startup", "models to start")
    flags.DEFINE_integer("rounds", 3, "starts of each kind", lower_bound=1)


def study() -> None:
    per_model.run("startup", measure, make_table)


main = cli.make_main(study, "nothing was written")

if __name__ == "__main__":
    define_flags()
    app.run(main)
