"""How do time and memory of training grow with the length of the sequence?

    python -m experiments.speed.lengths --torch_python=path/to/python

Recurrences of at most 70,000 parameters read sequences of one number per step: lru,
mingru and minlstm in three blocks that pool time by four, rnn, lstm and gru, and, where
the flag names a Python that has it, PyTorch's lstm and gru of the same units. With
--remat_steps=0,28 each is measured without and with recomputation. Each point is a
process of its own, so that its peak memory is its own; the models take turns at each
length. The time is the best of three stretches: on a shared machine noise only adds.
The memory is the peak of the resident set over what was resident before the model was
made; compilation is part of it.

Writes lengths.json, .md and .png under --workdir.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from absl import app, flags

from experiments.common import charts, machine, study_flags
from experiments.common.report import own_command, write_all
from experiments.common.sequence_recipes import MODELS, matched_units
from experiments.common.table import Table, column
from experiments.speed.frameworks import processes
from mnist_jax import cli, large_pages
from mnist_jax.config import ConfigError
from mnist_jax.errors import UserError
from mnist_jax.parallel import devices

LENGTHS = (28, 112, 784, 4096, 16384)
_OF_PYTORCH = ("gru", "lstm")
_PARTS = "experiments.speed.lengths_parts"

COLUMNS = (
    column("model", "model"),
    column("length", "length", "{:,}"),
    column("ms per image", "milliseconds", "{:.3f}"),
    column("images/s", "images_per_second", "{:,.0f}"),
    column("MiB", "mebibytes", "{:,.0f}"),
)


class LengthsError(UserError):
    """A point cannot be measured."""


def measure(
    command: list[str], name: str, length: int, arguments: list[Any], env: dict
) -> dict[str, Any]:
    """A row of the table, by a process of its own.

    Raises:
      LengthsError: it failed.
    """
    command = [*command, json.dumps(arguments)]
    what = f"{name} at length {length}"
    found = machine.measure_in_process(command, what, env, LengthsError)
    row = {
        "model": name,
        "length": length,
        "milliseconds": 1e3 * found["seconds_per_image"],
        "images_per_second": 1 / found["seconds_per_image"],
        "mebibytes": found["memory_bytes"] / 2**20,
    }
    print("  ".join(Table(COLUMNS, [row]).cells()[0]), file=sys.stderr, flush=True)
    return row


def parse_numbers(flag: str, texts: list[str], low: int) -> list[int]:
    """The whole numbers of a flag.

    Raises:
      ConfigError: one is none, or too low or too high.
    """
    if not texts or not all(x.isdecimal() and low <= int(x) <= 10**6 for x in texts):
        raise ConfigError(
            f"--{flag}={','.join(texts)}: expected whole numbers from {low} to "
            "1000000, with commas"
        )
    numbers = [int(text) for text in texts]
    study_flags.check_each_once(flag, texts, numbers)
    return numbers


def draw(rows: list[dict[str, Any]], title: str) -> dict[str, bytes]:
    """Time and memory against length: name -> PNG."""
    names = list(dict.fromkeys(row["model"] for row in rows))
    found = {}
    for key, label in (
        ("milliseconds", "ms per image"),
        ("mebibytes", "peak memory, MiB"),
    ):
        series = {}
        for name in names:
            own = [(row["length"], row[key]) for row in rows if row["model"] == name]
            series[name] = tuple(zip(*own, strict=True))
        labels = ("time steps", label)
        found[f"lengths_{key}.png"] = charts.lines(
            series, labels, title, xscale="log", yscale="log"
        )
    return found


def study() -> None:
    given = flags.FLAGS
    names = study_flags.names("models", given.models, list(MODELS))
    lengths = parse_numbers("lengths", given.lengths, 1)
    remat_steps = parse_numbers("remat_steps", given.remat_steps, 0)
    workdir = study_flags.workdir(given) or Path("runs/lengths")
    large_pages.restart_with_them()
    threads, torch = devices.count_cores(), None
    if given.torch_python:
        env = processes.environment(threads)
        torch = processes.find_interpreter(
            "torch_python", given.torch_python, "torch", env
        )
    ours = {**os.environ, "JAX_PLATFORMS": "cpu"}
    rows = []

    def add(row):
        rows.append(row)
        content = {
            "command": own_command(),
            "cpu": machine.cpu_name(),
            "batch_size": given.batch_size,
            "rows": rows,
        }
        write_all(workdir, {"lengths.json": content})

    for length in lengths:
        point = [length, given.batch_size, given.seconds]
        for name in names:
            command = [sys.executable, "-m", f"{_PARTS}.ours"]
            for steps in remat_steps:
                if steps < length:
                    shown = f"{name}, remat {steps}" if steps else name
                    arguments = [name, *point, steps]
                    row = measure(command, shown, length, arguments, ours)
                    add(row | {"remat_steps": steps})
            if torch and name in _OF_PYTORCH:
                command = [torch, "-m", f"{_PARTS}.pytorch"]
                arguments = [name, *point, matched_units(name), threads]
                add(measure(command, f"PyTorch {name}", length, arguments, env))
    table = Table(COLUMNS, rows)
    title = f"Training on {threads} cores of {machine.cpu_name()}"
    files = {"lengths.md": table.to_markdown()}
    write_all(workdir, files | draw(rows, title))
    print(table.to_text(), end="")


def define_flags() -> None:
    flags.DEFINE_list("models", list(MODELS), "models to train, with commas")
    flags.DEFINE_list("lengths", list(map(str, LENGTHS)), "time steps, with commas")
    flags.DEFINE_list("remat_steps", ["0"], "--remat_steps of the models, with commas")
    flags.DEFINE_integer("batch_size", 16, "images per step", lower_bound=2)
    flags.DEFINE_float("seconds", 3.0, "of training per point", lower_bound=0.0)
    flags.DEFINE_string("torch_python", None, "Python that has PyTorch")
    flags.DEFINE_string("workdir", None, "where to write (default: runs/lengths)")


main = cli.make_main(study, "points so far are in lengths.json")

if __name__ == "__main__":
    define_flags()
    app.run(main)
