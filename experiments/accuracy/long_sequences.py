"""How accurate is each recurrence that reads an image pixel by pixel?

    python -m experiments.accuracy.long_sequences --models=lru,mingru,minlstm

Trains recurrences of at most 70,000 parameters on the 784 pixels of an image one by
one, in their order (sMNIST) and in a fixed random one (psMNIST), each without and with
augmentation, the same for all; lru, mingru and minlstm have three blocks that pool time
by four. All six are 72 runs of 20 epochs with three seeds; one of lru takes 30 to 44
minutes on one core. Charts validation error by epoch and by minute, the size of the
gradient at the pixel of each time step, which says what is remembered, and the accuracy
where an eighth of the steps is black. The table has the memory that the arrays within
a training step take on one device. Finished runs are not repeated. Writes
long_sequences.json, .md, .png files and report.html under --workdir.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from experiments.accuracy.sequences import remembering, step_memory
from experiments.common import charts, columns, runs, study_flags
from experiments.common import sequence_recipes as recipes
from experiments.common.machine import cpu_name
from experiments.common.report import Page, own_command, write_all
from experiments.common.table import Table, column
from mnist_jax import cli, data, large_pages, training_setup
from mnist_jax.config import SETTINGS, Config, ConfigError

COLUMNS = (
    columns.MODEL,
    column("order", "sequence"),
    column("augmentation", "augment"),
    columns.PARAMETERS,
    columns.EPOCHS,
    columns.TEST_ACCURACY,
    columns.LOWEST,
    column("ensemble of seeds", "ensemble_accuracy", "{:.2%}"),
    columns.TRAINING,
    column("memory of a step, MiB", "step_mebibytes", "{:,.0f}"),
)
Group = tuple[str, str, str]  # model, sequence, augmentation


def make_configs(given: flags.FlagValues) -> dict[Group, dict[str, Config]]:
    """For each model, order and augmentation its runs' configs by their folders.

    Raises:
      ConfigError: a flag is wrong.
    """
    models = study_flags.names("models", given.models, list(recipes.MODELS))
    sequences = study_flags.names("sequences", given.sequences, recipes.SEQUENCES)
    augments = study_flags.names("augments", given.augments, list(recipes.AUGMENTS))
    if given.dataset in (unknown := ("auto", "folder")):
        known = ", ".join(name for name in data.DATASETS if name not in unknown)
        raise ConfigError(f"--dataset={given.dataset}: give a known one, of {known}")
    SETTINGS["epochs"].check(given.epochs)
    settings = study_flags.folders(given) | {"epochs": given.epochs}
    return {
        (model, sequence, augment): {
            f"{given.dataset}-{sequence}-{augment}-{model}-{seed}": recipes.make(
                model, given.dataset, sequence, augment, seed=seed, **settings
            )
            for seed in study_flags.seeds(given.seeds)
        }
        for sequence in sequences
        for augment in augments
        for model in models
    }


def draw(
    all_runs: Mapping[Group, Sequence[runs.Run]], dataset: data.Dataset
) -> dict[str, tuple[str, bytes]]:
    """The charts of each order and augmentation: name -> (caption, PNG)."""
    found = {}
    images, labels = dataset.test_images, dataset.test_labels
    for sequence, augment in dict.fromkeys(group[1:] for group in all_runs):
        own = {g[0]: x for g, x in all_runs.items() if g[1:] == (sequence, augment)}
        order = remembering.reading_order(sequence, images[0].size)
        title = f"{dataset.name}, {sequence}, augmentation {augment}"
        place = f"{sequence}-{augment}"
        for unit in ("epoch", "minute"):
            curves = {name: _curve(x, unit) for name, x in own.items()}
            found[f"by_{unit}-{place}"] = (
                f"Validation error by {unit} of training, mean over seeds.",
                charts.lines(
                    curves,
                    (f"{unit}s", "validation error, %"),
                    f"Learning: {title}",
                    yscale="log",
                ),
            )
        used = {
            name: [remembering.used_by(run, images, labels, order) for run in x]
            for name, x in own.items()
        }
        means = {
            name: [np.mean(arrays, axis=0) for arrays in zip(*x, strict=True)]
            for name, x in used.items()
        }
        steps = np.arange(1, len(order) + 1)
        found[f"gradient-{place}"] = (
            "Size of the gradient of the predicted class's log-probability at the "
            "pixel of each time step, a mean over runs and images.",
            charts.lines(
                {name: (steps, _smooth(norms)) for name, (norms, _) in means.items()},
                ("time step", "gradient"),
                f"What is remembered: {title}",
                yscale="log",
            ),
        )
        parts = np.arange(1, remembering.NUM_PARTS + 1)
        without = {name: (parts, 100 * x) for name, (_, x) in means.items()}
        found[f"masked-{place}"] = (
            "Accuracy where one eighth of the time steps is black.",
            charts.lines(
                without,
                ("eighth of the sequence that is black", "test accuracy, %"),
                f"Without a part: {title}",
            ),
        )
    return found


def _curve(own: Sequence[runs.Run], unit: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs, or minutes, and the validation error after each, means over runs."""

    def mean_of(key):
        return np.mean([[epoch[key] for epoch in run.epochs] for run in own], axis=0)

    errors = 100 * np.maximum(1 - mean_of("validation_accuracy"), 1e-4)
    if unit == "epoch":
        return np.arange(1, len(errors) + 1), errors
    return mean_of("seconds").cumsum() / 60, errors


def _smooth(values: np.ndarray, width: int = 28) -> np.ndarray:
    """Means over `width` neighbours, fewer at the ends, of what is drawn on a
    logarithmic axis."""
    weights = np.ones(min(width, len(values)))
    count = np.convolve(np.ones(len(values)), weights, "same")
    return np.maximum(np.convolve(values, weights, "same") / count, 1e-9)


def study() -> None:
    given = flags.FLAGS
    groups = make_configs(given)
    workdir = study_flags.workdir(given) or Path("runs/long_sequences")
    large_pages.restart_with_them()
    flat = {name: c for own in groups.values() for name, c in own.items()}
    trained = runs.train_all(flat, workdir)
    all_runs = {group: [trained[name] for name in own] for group, own in groups.items()}
    rows: list[dict[str, Any]] = [
        runs.summarize(own)
        | {"sequence": sequence, "augment": augment}
        | {"step_mebibytes": step_memory.temporary_bytes(own[0]) / 2**20}
        for (_, sequence, augment), own in all_runs.items()
    ]
    table = Table(COLUMNS, rows)
    dataset = training_setup.load_data(next(iter(flat.values())))
    figures = draw(all_runs, dataset)
    page = Page(f"Long sequences: {dataset.name}")
    page.table(table)
    for caption, png in figures.values():
        page.figure(png, caption)
    content = {
        "command": own_command(),
        "hardware": cpu_name(),
        "dataset": dataset.name,
        "rows": rows,
    }
    files = {
        "long_sequences.json": content,
        "long_sequences.md": table.to_markdown(),
        **{f"figures/{name}.png": png for name, (_, png) in figures.items()},
        "report.html": page,
    }
    write_all(workdir, files)
    print(table.to_text(), end="")


def define_flags() -> None:
    flags.DEFINE_list("models", list(recipes.MODELS), "models to train, with commas")
    flags.DEFINE_list("sequences", list(recipes.SEQUENCES), "orders of the pixels")
    flags.DEFINE_list(
        "augments",
        list(recipes.AUGMENTS),
        "none, elastic: what to train with, with commas",
    )
    flags.DEFINE_integer("epochs", 20, "of each run")
    cli.define_settings(("dataset",), dataset="mnist")
    study_flags.define_seeds(0, 1, 2)
    study_flags.define_folders("runs/long_sequences")


main = cli.make_main(study, "finished runs are kept")

if __name__ == "__main__":
    define_flags()
    app.run(main)
