"""Which model is best, at what cost, and is it really better?

    python -m experiments.accuracy.compare_models --datasets=mnist
        --models=linear,mlp,cnn,lenet5,resnet,rnn,lstm,gru
    python -m experiments.accuracy.compare_models --models=cnn,gru --seeds=0,1,2,3,4

Trains each model's preset with each seed on each data set, one run after the other in
folders under --workdir; finished runs are not repeated. Charts learning curves,
accuracy against parameters and against seconds, accuracy on each class, confusion
matrices, calibration, and the images that every model classifies wrongly. McNemar's
test says whether the two models with the highest validation accuracy differ by more
than chance. Where a chart shows one prediction of a model, it is that of the mean
probabilities of its seeds.

Writes compare-<dataset>.json, .md, a folder of figures and report-<dataset>.html. On
two cores eight presets with three seeds take 20 minutes on MNIST, and
`--datasets=digits --preset=quick --seeds=0` takes two.

Result: on MNIST resnet 99.53%, cnn 99.51, gru 99.42, lstm 99.41, mlp 99.28, lenet5
99.25, rnn 98.83, linear 92.67. Between gru and lstm no seed shows more than chance.
"""

import time
from pathlib import Path
from typing import Any

from absl import app, flags

from experiments.accuracy import comparison
from experiments.common import columns, runs, study_flags
from experiments.common.report import Page, own_command, write_all
from experiments.common.table import Table, column
from mnist_jax import cli, data, models
from mnist_jax.config import Config, ConfigError, make_config
from mnist_jax.parallel import devices

COLUMNS = (
    *columns.ACCURACY,
    column("ECE", "calibration_error", "{:.2%}"),
    columns.TRAINING,
)


def make_configs(given: flags.FlagValues, dataset: str) -> dict[str, dict[str, Config]]:
    """For each model its runs' configs by the names of their folders."""
    return {
        model: {
            f"{dataset}-{given.preset}-{model}-{seed}": make_config(
                model,
                dataset,
                given.preset,
                seed=seed,
                epochs=given.epochs,
                **study_flags.folders(given),
            )
            for seed in study_flags.seeds(given.seeds)
        }
        for model in given.models
    }


def compare(given: flags.FlagValues, dataset: str, workdir: Path) -> None:
    """Trains and reports on one data set."""
    began = time.monotonic()
    name = data.prepare(dataset, given.data_dir, given.raw_dir)
    by_model = make_configs(given, name)
    flat = {key: c for own in by_model.values() for key, c in own.items()}
    trained = runs.train_all(flat, workdir, is_last=dataset == given.datasets[-1])
    all_runs = {m: [trained[key] for key in own] for m, own in by_model.items()}
    report(all_runs, data.load(name, given.data_dir, given.raw_dir), workdir)
    minutes = (time.monotonic() - began) / 60
    print(f"{minutes:.1f} minutes; {workdir / f'report-{name}.html'}")


def report(all_runs: comparison.Runs, dataset: data.Dataset, workdir: Path) -> None:
    """Writes and prints what the runs on one data set show."""
    name = dataset.name
    means = {m: comparison.mean_probabilities(own) for m, own in all_runs.items()}
    table = Table(COLUMNS, comparison.summarize(all_runs))
    test = comparison.compare_best_two(table.rows, all_runs)
    verdict = comparison.describe(test)
    charts = comparison.draw(dataset, table.rows, all_runs, means)

    page = Page(f"Models on {name}")
    page.table(table)
    page.text(verdict)
    for caption, png in charts.values():
        page.figure(png, caption)
    files: dict[str, Any] = {
        f"compare-{name}.json": {
            "command": own_command(),
            "dataset": name,
            "rows": table.rows,
            "test": test,
        },
        f"compare-{name}.md": f"{table.to_markdown()}\n{verdict}\n",
        f"report-{name}.html": page,
    }
    files |= {f"figures-{name}/{key}.png": png for key, (_, png) in charts.items()}
    write_all(workdir, files)
    print(f"{table.to_text()}\n{verdict}\n")


def study() -> None:
    given = flags.FLAGS
    study_flags.names("datasets", given.datasets, data.NAMES)
    if len(given.models) < 2:
        raise ConfigError("--models: give two or more to compare, with commas")
    study_flags.names("models", given.models, list(models.MODELS))
    for name in given.datasets:  # wrong settings are refused before data is fetched
        for own in make_configs(given, name).values():
            study_flags.check_validates(next(iter(own.values())))
    workdir = study_flags.workdir(given) or Path("runs/compare")
    devices.start()
    for name in given.datasets:
        compare(given, name, workdir)


def define_flags() -> None:
    flags.DEFINE_list("models", list(models.MODELS), "models to train, with commas")
    flags.DEFINE_list("datasets", ["auto"], "data sets to train on, with commas")
    study_flags.define_seeds(0, 1, 2)
    cli.define_settings(("preset", "epochs"), preset="default")
    study_flags.define_folders("runs/compare")


main = cli.make_main(study)

if __name__ == "__main__":
    define_flags()
    app.run(main)
