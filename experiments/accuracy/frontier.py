"""How accurate can each family of models be on MNIST, honestly measured?

    python -m experiments.accuracy.frontier --models=cnn,mlp --seeds=0,1,2,3,4

Trains the frozen recipe of each family, --preset=best, on all training images, and
scores the test set once per seed, after the last step. Recipes are chosen without the
test set by select_recipe. A distilled model learns from the run of its teacher's family
that has its seed, so that its seeds are independent. Also averages probabilities over
views of an image (--eval_views=9), over the seeds of a family, and over families in
combinations that were fixed before. Goes on where it was stopped, and does not repeat
finished runs. Writes frontier.json, .md, .png and report.html under --workdir.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from experiments.accuracy.frontier_parts import ensembles
from experiments.accuracy.frontier_parts.families import (
    FAMILIES,
    SUSPECTED_LABELS,
    Family,
)
from experiments.accuracy.frontier_parts.rows import NUM_VIEWS, summarize
from experiments.common import charts, columns, prediction_charts, runs, study_flags
from experiments.common.machine import cpu_name
from experiments.common.report import Page, own_command, write_all
from experiments.common.table import Column, Table, column
from mnist_jax import cli, data, training_setup
from mnist_jax.config import Config, ConfigError, absolute_folders, make_config
from mnist_jax.formats import counted

COLUMNS = (
    column("family", "family"),
    columns.MODEL,
    columns.PARAMETERS,
    column("MACs", "macs", "{:,}"),
    columns.EPOCHS,
    column("min", "minutes", "{:.0f}"),
    column("seeds", "num_seeds", "{:d}"),
    Column(
        "test accuracy",
        lambda row: columns.with_spread(row, 3),
    ),
    column("standard error", "standard_error", "{:.3f}"),
    Column("lowest", lambda row: f"{min(row['test_accuracies']):.2%}"),
    column(f"{NUM_VIEWS} views", "views_accuracy", "{:.3%}"),
    column("published, honest", "honest", "{:.2%}"),
    column("published, headline", "headline", "{:.2%}"),
)
ENSEMBLE_COLUMNS = (
    column("ensemble", "ensemble"),
    column("members", "num_members", "{:d}"),
    column("test accuracy", "test_accuracy", "{:.2%}"),
)


def draw(
    rows: Sequence[Mapping[str, Any]],
    all_runs: Mapping[str, Sequence[runs.Run]],
    dataset: data.Dataset,
) -> dict[str, tuple[str, bytes]]:
    """The charts: name -> (caption, PNG)."""
    on = f"{dataset.name}, {counted(len(rows[0]['seeds']), 'seed')}"
    axes = {
        "num_params": "parameters",
        "macs": "multiply-accumulates per image",
        "training_macs": "multiply-accumulates of the training",
    }
    labels = dataset.test_labels
    predicted = np.array(
        [
            ensembles.mean([x.predictions.probabilities for x in own]).argmax(-1)
            for own in all_runs.values()
        ]
    )
    wrong = np.flatnonzero((predicted != labels).all(0))
    suspected = np.array(SUSPECTED_LABELS if dataset.name == "mnist" else (), int)
    shown = np.concatenate([wrong, np.setdiff1d(suspected, wrong)])[:60]
    both = np.intersect1d(wrong, suspected)
    title = f"{counted(len(wrong), 'test image')} that all families classify wrongly"
    if len(shown) < len(wrong):
        title = f"{len(shown)} of {title}"
    elif len(suspected):
        title += (
            f", {len(both)} of them among the {len(suspected)} suspected labels; then "
            "the others of these"
        )
    return {
        "frontier": (
            "Test error against parameters and compute; the line joins the families "
            "that no other beats in both.",
            charts.pareto(rows, f"Test error of each family: {on}", axes),
        ),
        "wrong_images": (
            "Images that every family's mean over seeds classifies wrongly.",
            prediction_charts.wrong_images(
                dataset.test_images[shown, ..., 0],
                labels[shown],
                predicted[:, shown],
                dataset.class_names,
                title,
            ),
        ),
    }


def make_configs(
    given: flags.FlagValues, workdir: Path
) -> dict[Family, dict[str, Config]]:
    """For each family, teachers before students, the config of each run by its folder.

    Raises:
      ConfigError: a flag is wrong.
    """
    known = [family.key for family in FAMILIES]
    chosen = study_flags.names("models", given.models, known)
    study_flags.check_is_known(given.dataset)
    folders, seeds = study_flags.folders(given), study_flags.seeds(given.seeds)
    configs = {}
    for family in sorted(FAMILIES, key=lambda one: one.teacher is not None):
        if family.key not in chosen:
            continue
        if family.teacher not in (None, *chosen):
            raise ConfigError(
                f"--models={','.join(chosen)}: {family.key} learns from "
                f"{family.teacher}: give that too"
            )
        configs[family] = {
            f"{family.key}-{seed}": make_config(
                family.model,
                given.dataset,
                given.preset,
                seed=seed,
                teacher=family.teacher
                and absolute_folders(str(workdir / f"{family.teacher}-{seed}")),
                **folders,
            )
            for seed in seeds
        }
    return configs


def train(
    configs: Mapping[Family, Mapping[str, Config]], workdir: Path
) -> dict[str, runs.Run]:
    """The runs of all families by their folders; see `runs.train_all`.

    Students wait until all teachers are trained, maybe by another process.
    """
    first, then = {}, {}
    for family, own in configs.items():
        (then if family.teacher else first).update(own)
    trained = runs.train_all(first, workdir, is_last=not then)
    return trained | runs.train_all(then, workdir)


def study() -> None:
    given = flags.FLAGS
    workdir = study_flags.workdir(given) or Path(f"runs/frontier-{given.dataset}")
    configs = make_configs(given, workdir)
    trained = train(configs, workdir)
    dataset = training_setup.load_data(next(iter(trained.values())).config)
    all_runs, rows = {}, []
    for family, own in configs.items():
        all_runs[family.key] = [trained[name] for name in own]
        rows.append(summarize(family, all_runs[family.key], dataset))
    rows.sort(key=lambda row: row["test_accuracy"])
    grouped = ensembles.summarize(all_runs, dataset.test_labels)
    table, together = Table(COLUMNS, rows), Table(ENSEMBLE_COLUMNS, grouped)
    page = Page(f"The frontier on {dataset.name}")
    page.table(table)
    page.table(together)
    figures = draw(rows, all_runs, dataset)
    for caption, png in figures.values():
        page.figure(png, caption)
    content = {
        "command": own_command(),
        "hardware": cpu_name(),
        "dataset": dataset.name,
        "rows": rows,
        "ensembles": grouped,
    }
    files = {
        "frontier.json": content,
        "frontier.md": f"{table.to_markdown()}\n{together.to_markdown()}",
        **{f"{name}.png": png for name, (_, png) in figures.items()},
        "report.html": page,
    }
    write_all(workdir, files)
    print(table.to_text(), together.to_text(), sep="\n", end="")


def define_flags() -> None:
    models = [family.key for family in FAMILIES]
    flags.DEFINE_list("models", models, "whose families to train, with commas")
    cli.define_settings(("dataset", "preset"), dataset="mnist", preset="best")
    study_flags.define_seeds(0, 1, 2, 3, 4)
    study_flags.define_folders("runs/frontier-<dataset>")


main = cli.make_main(study, "finished runs are kept")

if __name__ == "__main__":
    define_flags()
    app.run(main)
