"""How much faster does a model train in bfloat16 than in float32?

    python -m experiments.speed.precision --dataset=mnist --torch_python=path/to/python

One epoch of each model with --precision=float32 and bfloat16, otherwise with the
settings of benchmark_frameworks, but batches of 128; `wide_mlp` has hidden layers of
1,500, 1,000 and 500. PyTorch, where its flag names a Python that has it, trains the
models that it shares, tuned, in float32 and under its CPU autocast. All take turns, and
ratios are taken within a round. Writes precision.json and .md under --workdir. Takes 25
minutes on two cores.

Result, on 2 cores of an Intel Xeon with amx_bf16: bfloat16 is 2.2 (lstm), 2.0 (gru),
1.7 (rnn), 1.3 (wide_mlp), 1.0 (cnn, resnet: 3x3 convolutions stay float32), 0.9 (mlp)
and 0.8 times (linear) as fast as float32.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from experiments.common import study_flags
from experiments.common.machine import cpu_name
from experiments.common.report import own_command, write_all
from experiments.common.table import Table, column
from experiments.speed import plain_runs
from experiments.speed.frameworks import families, processes
from experiments.speed.frameworks.processes import say
from experiments.speed.timing import MEDIAN_RANGE, PAUSE, median_range, take_turn
from mnist_jax import cli, data, models, signals
from mnist_jax.config import SETTINGS
from mnist_jax.parallel import devices

WIDE = {"hidden_sizes": (1500, 1000, 500)}
# (model, its settings)
MODELS = {
    **{name: (name, {}) for name in models.MODELS if len(models.precisions(name)) > 1},
    "wide_mlp": ("mlp", WIDE),
}
BATCH_SIZE = 128
PRECISIONS = SETTINGS["precision"].choices
# By the name that the worker is told.
PEERS = {"torch_tuned": "PyTorch", "torch_autocast": "PyTorch, autocast"}

COLUMNS = (
    column("model", "model"),
    column("float32, s", "float32", "{:.2f}"),
    column("bfloat16, s", "bfloat16", "{:.2f}"),
    column("speedup", "speedup", MEDIAN_RANGE),
    *(column(f"{name}, s", key, "{:.2f}") for key, name in PEERS.items()),
)
Contestant = Callable[[], dict[str, Any]]  # trains an epoch


def own_contestants(
    model: str, images: np.ndarray, labels: np.ndarray
) -> dict[str, Contestant]:
    """This package's epochs by precision, compiled."""
    found = {}
    for precision in PRECISIONS:
        name, settings = MODELS[model]
        config = plain_runs.make_plain_config(
            name, BATCH_SIZE, precision=precision, **settings
        )
        trainer = plain_runs.make_plain_trainer(config, images, labels)
        trainer.compile()
        found[precision] = plain_runs.make_epochs(trainer)
    return found


def measure(
    model: str, contestants: dict[str, Contestant], rounds: int, seconds: float
) -> dict[str, Any]:
    """A row: medians of the epochs, and the ratio within a round."""
    turns = {name: [] for name in contestants}
    for run_epoch in contestants.values():
        run_epoch()
    for _ in range(rounds):
        for name, run_epoch in contestants.items():
            turns[name].append(take_turn(run_epoch, seconds)["seconds"])
            time.sleep(PAUSE)
    ratios = [a / b for a, b in zip(*(turns[x] for x in PRECISIONS), strict=True)]
    row = {
        "model": model,
        "speedup": median_range(ratios),
        "seconds": turns,
        **dict.fromkeys(PEERS),
        **{name: float(np.median(own)) for name, own in turns.items()},
    }
    say("  ".join(Table(COLUMNS, [row]).cells()[0]))
    return row


def study() -> None:
    given = flags.FLAGS
    names = study_flags.names("models", given.models, list(MODELS))
    workdir = study_flags.workdir(given) or Path("runs/precision_speed")
    threads, peers = devices.count_cores(), {}
    if given.torch_python:
        env = processes.environment(threads)
        python = processes.find_interpreter(
            "torch_python", given.torch_python, "torch", env
        )
        command = [python, "-m", "experiments.speed.frameworks.pytorch_tuned"]
        peers = dict.fromkeys(PEERS, command)
    devices.start()
    loaded = data.load(given.dataset, given.data_dir, given.raw_dir)
    images = loaded.train_images[: given.images]
    labels = loaded.train_labels[: given.images]
    rows = []
    with signals.temporary_folder() as folder:
        np.savez(folder / "data.npz", images=images, labels=labels)
        for model in names:
            own = own_contestants(model, images, labels)
            shared = peers if model in families.BATCH_SIZES else {}
            started = processes.warmed_up(shared, model, BATCH_SIZE, threads, folder)
            with started as (workers, _):
                others = {name: worker.run_epoch for name, worker in workers.items()}
                rows.append(
                    measure(model, own | others, given.rounds, given.turn_seconds)
                )
            table = Table(COLUMNS, rows)
            content = {
                "dataset": loaded.name,
                "images": len(images),
                "cpu": cpu_name(),
                "command": own_command(),
                "rows": rows,
            }
            files = {"precision.json": content, "precision.md": table.to_markdown()}
            write_all(workdir, files)
    print(table.to_text(), end="")


def define_flags() -> None:
    flags.DEFINE_list("models", list(MODELS), "models to train")
    flags.DEFINE_string("torch_python", None, "Python that has PyTorch")
    flags.DEFINE_integer("rounds", 3, "turns of each", lower_bound=1)
    flags.DEFINE_float("turn_seconds", 2.0, "of a turn, at least", lower_bound=0.0)
    flags.DEFINE_integer("images", 60000, "images in an epoch", lower_bound=BATCH_SIZE)
    cli.define_settings(("dataset",), dataset="mnist")
    study_flags.define_folders("runs/precision_speed")


main = cli.make_main(study, "models that are finished are in the workdir")

if __name__ == "__main__":
    define_flags()
    app.run(main)
