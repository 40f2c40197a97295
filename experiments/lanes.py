"""How much faster do many runs train together than one after the other?

    python experiments/lanes.py --raw_dir=path/to/idx/files

One epoch of MNIST for a run by itself, as `launch.py` trains it, and for 2, 8 and 32
runs as lanes of one compiled program, which differ in seed and learning rate. They take
turns, so that a change of the machine's speed meets all; a ratio is taken within a
round. Models, batches and Adam are those of `benchmark_peers.py`: softmax regression,
and one hidden layer of 128, at batch 32 without augmentation and dropout.

Writes lanes.json, .md, .png and report.html under --workdir. Takes two minutes.

Result: 32 runs of mlp take 28 times as long as one, 32 of linear 17 times.
"""

import mnist_jax  # isort: skip  # noqa: F401  before JAX, whose messages it limits

import statistics
import sys
from pathlib import Path

from absl import app, flags
from machine import cpu_name
from peers import families, ours, protocol
from study import figures, program, runs
from study.page import Page, markdown, write_all

from mnist_jax import datasets, parallel
from mnist_jax.config import ConfigError, make_config
from mnist_jax.train.lanes import Lanes

_MODELS = flags.DEFINE_list("models", ["linear", "mlp"], "models to train")
_LANES = flags.DEFINE_list("lanes", ["2", "8", "32"], "numbers of lanes")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "turns of each", lower_bound=1)
_DATASET = flags.DEFINE_enum("dataset", "auto", datasets.NAMES, "as in launch.py")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "as in launch.py")
_RAW_DIR = flags.DEFINE_string("raw_dir", None, "as in launch.py")
_WORKDIR = flags.DEFINE_string("workdir", "runs/lanes", "where to write")
_TURN_SECONDS = 2.0


def together(task: protocol.Task, dataset: str, num_lanes: int) -> Lanes:
    """So many runs of the task, which differ in seed and rate."""
    shared = ours.plain_config(task).to_dict() | {
        "dataset": dataset,
        "validation_fraction": 0.0,
        **runs.folders(flags.FLAGS),
    }
    model, name = shared.pop("model"), shared.pop("dataset")
    own = [
        {"seed": i, "learning_rate": families.LEARNING_RATE * (1 + i / num_lanes)}
        for i in range(num_lanes)
    ]
    return Lanes([make_config(model, name, **(shared | one)) for one in own])


def measure(model: str, dataset: datasets.Dataset) -> list[dict]:
    """For one run and each number of lanes: median seconds, and times one run's."""
    task = protocol.Task(
        "ours",
        model,
        families.BATCH_SIZES[model],
        parallel.count_cores(),
        dataset.train_images,
        dataset.train_labels,
    )
    trained = {1: ours.Trainer(task)}
    for number in map(int, _LANES.value):
        trained[number] = together(task, dataset.name, number)
    epochs = {number: protocol.timed(x.train_epoch) for number, x in trained.items()}
    for run_epoch in epochs.values():
        run_epoch()
    rounds = []
    for i in range(_ROUNDS.value):
        turns = {n: protocol.take_turn(x, _TURN_SECONDS) for n, x in epochs.items()}
        rounds.append({number: turn["seconds"] for number, turn in turns.items()})
        print(f"{model}: round {i + 1} of {_ROUNDS.value}", file=sys.stderr)
    return [
        {
            "model": model,
            "lanes": number,
            "seconds": statistics.median(one[number] for one in rounds),
            "times_one": statistics.median(one[number] / one[1] for one in rounds),
            "lowest": min(one[number] / one[1] for one in rounds),
            "highest": max(one[number] / one[1] for one in rounds),
        }
        for number in epochs
    ]


def study() -> None:
    if not _MODELS.value:
        raise ConfigError("--models=: give one or more, with commas")
    for model in _MODELS.value:
        if model not in families.BATCH_SIZES:
            known = ", ".join(families.BATCH_SIZES)
            raise ConfigError(f"--models={model}: expected some of {known}")
    for text in _LANES.value:
        if not text.isdecimal() or int(text) < 2:
            raise ConfigError(f"--lanes={text}: expected numbers of 2 or more")
    parallel.start()
    name = datasets.prepare(_DATASET.value, _DATA_DIR.value, _RAW_DIR.value)
    dataset = datasets.load(name, _DATA_DIR.value, _RAW_DIR.value)
    rows = [row for model in _MODELS.value for row in measure(model, dataset)]

    heads = (
        "model",
        "runs",
        "seconds per epoch",
        "times one run",
        "per run, faster by",
    )
    lines = [
        [
            row["model"],
            str(row["lanes"]),
            f"{row['seconds']:.2f}",
            f"{row['times_one']:.1f} ({row['lowest']:.1f} to {row['highest']:.1f})",
            f"{row['lanes'] / row['times_one']:.1f}",
        ]
        for row in rows
    ]
    text = markdown(heads, lines)
    by_model = {
        model: [row for row in rows if row["model"] == model] for model in _MODELS.value
    }
    title = f"Runs trained together on {name}, {cpu_name()}"
    png = figures.lines(
        {
            model: (
                [row["lanes"] for row in own],
                [row["times_one"] for row in own],
            )
            for model, own in by_model.items()
        },
        ("runs in one program", "time of an epoch, times that of one run"),
        title,
        xscale="log",
        yscale="log",
    )
    page = Page(title)
    page.table(heads, lines)
    page.figure(png, "Time of an epoch against the number of runs.")
    content = {"cpu": cpu_name(), "rows": rows}
    files = {"lanes.json": content, "lanes.md": text, "lanes.png": png}
    write_all(Path(_WORKDIR.value), files | {"report.html": page})
    print(text)


if __name__ == "__main__":
    app.run(program.main_of(study, go_on="nothing was written"))
