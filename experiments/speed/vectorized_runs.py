"""How much faster do vectorized runs train than the same runs one after the other?

    python -m experiments.speed.vectorized_runs --dataset=mnist

Times one epoch of a run by itself, as `launch.py` trains it, and of 2, 8 and 32 members
of one compiled program, which differ in seed and learning rate. They take turns, so
that a change of the machine's speed meets all of them; ratios are taken within a round.
Models, batches and Adam are those of `benchmark_frameworks`: softmax regression, and
one hidden layer of 128, at batch 32 without augmentation and dropout.

Writes vectorized.json, .md, .png and report.html under --workdir. Takes two minutes on
two cores.

Result, on 2 cores of an Intel Xeon: an epoch of 32 members of mlp takes 17 times as
long as one of a single run (speedup 1.8), of 32 members of linear 9 times (3.5).
"""

import dataclasses
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from experiments.common import charts, study_flags
from experiments.common.machine import cpu_name
from experiments.common.report import Page, write_all
from experiments.common.table import Table, column
from experiments.speed import plain_runs, timing
from experiments.speed.frameworks import families
from mnist_jax import cli, data
from mnist_jax.config import Config
from mnist_jax.parallel import devices
from mnist_jax.settings import ConfigError
from mnist_jax.trainer import Trainer
from mnist_jax.vectorized import VectorizedRuns

_TURN_SECONDS = 2.0

COLUMNS = (
    column("model", "model"),
    column("runs", "runs", "{:d}"),
    column("seconds per epoch", "seconds", "{:.2f}"),
    column("over one run's (lowest to highest)", "time_over_one", timing.MEDIAN_RANGE),
    column("speedup per run", "speedup", "{:.1f}"),
)


def make_trainers(config: Config, numbers: Sequence[int]) -> dict[int, Trainer]:
    """The drivers of one run and of so many vectorized runs, by their number.

    Args:
      config: of the run; members differ in seed and learning rate.
      numbers: of members, each 2 or more.
    """
    dataset = data.load(config.dataset, config.data_dir, config.raw_dir)
    trainers = {
        1: plain_runs.make_plain_trainer(
            config, dataset.train_images, dataset.train_labels
        )
    }
    for number in numbers:
        rates = [config.learning_rate * (1 + i / number) for i in range(number)]
        members = [
            dataclasses.replace(config, seed=seed, learning_rate=rate)
            for seed, rate in enumerate(rates)
        ]
        trainers[number] = VectorizedRuns(members).trainer
    return trainers


def measure(config: Config, numbers: Sequence[int], rounds: int) -> list[dict]:
    """A row for one run and for each number of members; arguments as above."""

    epochs = {}
    for number, trainer in make_trainers(config, numbers).items():
        trainer.compile()
        epochs[number] = plain_runs.make_epochs(trainer)
        epochs[number]()  # warms up
    turns = []
    for i in range(rounds):
        turns.append(
            {
                number: timing.take_turn(run_epoch, _TURN_SECONDS)["seconds"]
                for number, run_epoch in epochs.items()
            }
        )
        print(f"{config.model}: round {i + 1} of {rounds}", file=sys.stderr, flush=True)
    rows = []
    for number in epochs:
        over_one = timing.median_range([one[number] / one[1] for one in turns])
        rows.append(
            {
                "model": config.model,
                "runs": number,
                "seconds": statistics.median(one[number] for one in turns),
                "time_over_one": over_one,
                "speedup": number / over_one["median"],
            }
        )
    return rows


def draw(rows: Sequence[dict[str, Any]], title: str) -> bytes:
    """Time of an epoch against the number of runs, as a PNG file."""
    series: dict[str, tuple[list, list]] = {}
    for row in rows:
        runs, times = series.setdefault(row["model"], ([], []))
        runs.append(row["runs"])
        times.append(row["time_over_one"]["median"])
    return charts.lines(
        series,
        ("runs in one program", "time of an epoch over that of one run"),
        title,
        xscale="log",
        yscale="log",
    )


def define_flags() -> None:
    flags.DEFINE_list("models", ["linear", "mlp"], "models to train")
    flags.DEFINE_list("members", ["2", "8", "32"], "numbers of vectorized runs")
    flags.DEFINE_integer("rounds", 3, "turns of each", lower_bound=1)
    cli.define_settings(("dataset",), dataset="auto")
    study_flags.define_folders("runs/vectorized")


def study() -> None:
    given = flags.FLAGS
    names = study_flags.names("models", given.models, list(families.BATCH_SIZES))
    for text in given.members or [""]:
        if not text.isdecimal() or int(text) < 2:
            raise ConfigError(f"--members={text}: expected numbers of 2 or more")
    study_flags.check_each_once("members", given.members)
    folders = study_flags.folders(given)
    workdir = study_flags.workdir(given) or Path("runs/vectorized")
    devices.start()
    dataset = data.prepare(given.dataset, **folders)
    rows = []
    for model in names:
        config = plain_runs.make_plain_config(
            model,
            families.BATCH_SIZES[model],
            dataset=dataset,
            validation_fraction=0.0,
            **folders,
        )
        rows += measure(config, list(map(int, given.members)), given.rounds)

    title = f"Vectorized runs on {dataset}, {cpu_name()}"
    table, png = Table(COLUMNS, rows), draw(rows, title)
    page = Page(title)
    page.table(table)
    page.figure(png, "Time of an epoch against the number of runs.")
    content = {"cpu": cpu_name(), "dataset": dataset, "rows": rows}
    files = {"json": content, "md": table.to_markdown(), "png": png}
    files = {f"vectorized.{suffix}": x for suffix, x in files.items()}
    write_all(workdir, files | {"report.html": page})
    print(table.to_text())


main = cli.make_main(study, "nothing was written")

if __name__ == "__main__":
    define_flags()
    app.run(main)
