"""How large may a batch be, and what becomes of the learning rate?

    python -m experiments.accuracy.batch_sizes --dataset=mnist --models=mlp,cnn

More devices want larger batches, which are fewer steps in as many epochs. Trains each
model's preset with each batch, and with three rates: the preset's own, times the square
root of how many times larger the batch is (for Adam: Malladi et al., "On the SDEs and
Scaling Rules for Adaptive Gradient Algorithms", 2022), and times that itself (for SGD:
Goyal et al., "Accurate, Large Minibatch SGD", 2017). Compares the validation accuracy
after the last epoch; the test set has no part in it. A run whose loss is no longer
finite diverges; means are of the others. Finished runs are not repeated. Writes
batch_sizes-<dataset>.json, .md and .png under --workdir.

Result: docs/accelerators.md.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from experiments.common import charts, runs, study_flags
from experiments.common.machine import cpu_name
from experiments.common.report import own_command, write_all
from experiments.common.table import Column, Table, column
from mnist_jax import cli, models
from mnist_jax.config import SETTINGS, Config, ConfigError, make_config
from mnist_jax.divergence import TrainingError
from mnist_jax.parallel import devices

# By what the rate is multiplied for a batch that is so many times larger.
SCALINGS = {
    "constant": lambda factor: 1.0,
    "square root": lambda factor: factor**0.5,
    "linear": lambda factor: factor,
}


def _finite(row: dict[str, Any]) -> list[float]:
    """Accuracies of the seeds that do not diverge."""
    return [accuracy for accuracy in row["accuracies"] if accuracy is not None]


def _accuracies(row: dict[str, Any]) -> str:
    finite, num_seeds = _finite(row), len(row["accuracies"])
    lost = num_seeds - len(finite)
    text = f"{lost} of {num_seeds} diverge" if lost else ""
    if finite:
        mean = f"{statistics.fmean(finite):.2%}"
        text = f"{mean}, {text}" if lost else mean
    return text


COLUMNS = (
    column("model", "model"),
    column("images per batch", "batch_size", "{:,}"),
    column("rate", "scaling"),
    column("learning rate", "learning_rate", "{:.2g}"),
    Column("validation accuracy", _accuracies),
)


def make_rows(given: flags.FlagValues) -> list[tuple[dict[str, Any], list[Config]]]:
    """For each model, batch and scaling a row without results, and its runs.

    Raises:
      ConfigError: a flag is wrong.
    """
    names = study_flags.names("models", given.models, list(models.MODELS))
    seeds, folders = study_flags.seeds(given.seeds), study_flags.folders(given)
    study_flags.check_is_known(given.dataset)
    sizes = [parse_size(text) for text in given.batch_sizes or [""]]
    study_flags.check_each_once("batch_sizes", given.batch_sizes, sizes)
    rows = []
    for model in names:
        preset = make_config(model, given.dataset, given.preset)
        study_flags.check_validates(preset)
        for size in sizes:
            factor, rates = size / preset.batch_size, {}
            for scaling, scale in SCALINGS.items():
                rate = preset.learning_rate * scale(factor)
                if rate in rates:
                    continue
                rates[rate] = scaling
                row = {
                    "model": model,
                    "batch_size": size,
                    "scaling": scaling,
                    "learning_rate": rate,
                }
                configs = [
                    make_config(
                        model,
                        given.dataset,
                        given.preset,
                        batch_size=size,
                        learning_rate=rate,
                        seed=seed,
                        **folders,
                    )
                    for seed in seeds
                ]
                rows.append((row, configs))
    return rows


def parse_size(text: str) -> int:
    """An entry of --batch_sizes.

    Raises:
      ConfigError: it is no batch size.
    """
    one = SETTINGS["batch_size"]
    try:
        size = one.parse(text)
        one.check(size)
    except ConfigError:
        raise ConfigError(
            f"--batch_sizes={text}: expected whole numbers from {one.low} to "
            f"{one.high}, with commas"
        ) from None
    return size


def train(name: str, config: Config, workdir: Path) -> float | None:
    """The validation accuracy after the last epoch, None where the run diverges."""
    try:
        [run] = runs.train_all({name: config}, workdir, is_last=False).values()
    except TrainingError:
        return None
    return run.epochs[-1]["validation_accuracy"]


def draw(rows: Sequence[dict[str, Any]]) -> bytes:
    """Validation error by batch, a line for each model and scaling."""
    series: dict[str, tuple[list[int], list[float]]] = {}
    for row in rows:
        sizes, errors = series.setdefault(f"{row['model']}, {row['scaling']}", ([], []))
        if finite := _finite(row):
            sizes.append(row["batch_size"])
            errors.append(100 * max(1e-4, 1 - statistics.fmean(finite)))
    axes = {"xscale": "log", "yscale": "log"}
    labels = ("images per batch", "validation error, %")
    return charts.lines(series, labels, "Batches and rates", **axes)


def study() -> None:
    given = flags.FLAGS
    planned = make_rows(given)
    workdir = study_flags.workdir(given) or Path("runs/batch_sizes")
    devices.start()
    rows = []
    for row, configs in planned:
        place = f"{given.dataset}-{given.preset}-{row['model']}-{row['batch_size']}"
        place += f"-{row['scaling'].replace(' ', '_')}"
        accuracies = [train(f"{place}-{x.seed}", x, workdir) for x in configs]
        rows.append(
            row
            | {
                "accuracies": accuracies,
                "seeds": [x.seed for x in configs],
            }
        )
        table = Table(COLUMNS, rows)
        content = {
            "dataset": given.dataset,
            "preset": given.preset,
            "cpu": cpu_name(),
            "command": own_command(),
            "rows": rows,
        }
        name = f"batch_sizes-{given.dataset}"
        files = {f"{name}.json": content, f"{name}.md": table.to_markdown()}
        write_all(workdir, files | {f"{name}.png": draw(rows)})
    print(table.to_text(), end="")


def define_flags() -> None:
    flags.DEFINE_list("models", ["mlp", "cnn"], "models to train, with commas")
    flags.DEFINE_list("batch_sizes", ["128", "512", "2048", "8192"], "with commas")
    cli.define_settings(("dataset", "preset"), dataset="mnist", preset="default")
    study_flags.define_seeds(0, 1, 2)
    study_flags.define_folders("runs/batch_sizes")


main = cli.make_main(study, "finished runs are kept")

if __name__ == "__main__":
    define_flags()
    app.run(main)
