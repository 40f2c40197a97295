"""Does training in bfloat16 cost accuracy?

    python -m experiments.accuracy.precision --dataset=mnist --preset=quick
        --models=linear,mlp,cnn,lenet5,resnet,rnn,lstm,gru

Trains each model's preset twice with each seed, with --precision=float32 and bfloat16,
and compares the validation accuracy after the last epoch seed by seed: both runs of a
seed have the same first weights, batches, augmentation and dropout. The test set has no
part in it. Runs that are finished are not repeated. Writes precision-<dataset>.json and
.md under --workdir. Takes 30 minutes for five seeds of these on two cores.

Result, on MNIST after the quick presets, when these shifted images: differences of
-0.02 to +0.06 points, all but linear's (+0.010, standard error 0.004) within two
standard errors.
"""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from experiments.common import runs, study_flags
from experiments.common.machine import cpu_name
from experiments.common.report import own_command, write_all
from experiments.common.table import Table, column
from mnist_jax import cli, models
from mnist_jax.config import SETTINGS, make_config
from mnist_jax.parallel import devices

# Those that have a choice.
MODELS = [name for name in models.MODELS if len(models.precisions(name)) > 1]
COLUMNS = (
    column("model", "model"),
    column("epochs", "epochs", "{:d}"),
    column("seeds", "num_seeds", "{:d}"),
    *(column(name, name, "{:.2%}") for name in SETTINGS["precision"].choices),
    column("difference, points", "difference", "{:+.3f}"),
    column("standard error", "standard_error", "{:.3f}"),
)


def summarize(pairs: Sequence[tuple[runs.Run, runs.Run]]) -> dict[str, Any]:
    """A row of one model's runs: of each seed that in float32 and that in bfloat16.

    Accuracies are from 0 to 1; the difference, bfloat16 less float32, and its standard
    error over the seeds, None for one seed, are in percentage points.
    """
    accuracies = [
        [run.epochs[-1]["validation_accuracy"] for run in pair] for pair in pairs
    ]
    differences = [100 * (narrow - wide) for wide, narrow in accuracies]
    error = None
    if len(differences) > 1:
        error = statistics.stdev(differences) / math.sqrt(len(differences))
    wide, narrow = map(statistics.fmean, zip(*accuracies, strict=True))
    config = pairs[0][0].config
    return {
        "model": config.model,
        "epochs": config.epochs,
        "num_seeds": len(pairs),
        "seeds": [run.config.seed for run, _ in pairs],
        "float32": wide,
        "bfloat16": narrow,
        "difference": statistics.fmean(differences),
        "standard_error": error,
        "differences": differences,
    }


def study() -> None:
    given = flags.FLAGS
    names = study_flags.names("models", given.models, MODELS)
    seeds = study_flags.seeds(given.seeds)
    folders = study_flags.folders(given)
    workdir = study_flags.workdir(given) or Path("runs/precision")
    configs = {
        model: {
            f"{given.dataset}-{given.preset}-{model}-{precision}-{seed}": make_config(
                model,
                given.dataset,
                given.preset,
                seed=seed,
                precision=precision,
                **folders,
            )
            for seed in seeds
            for precision in SETTINGS["precision"].choices
        }
        for model in names
    }
    study_flags.check_is_known(given.dataset)
    for own in configs.values():
        study_flags.check_validates(next(iter(own.values())))
    devices.start()
    rows = []
    for own in configs.values():
        finished = list(runs.train_all(own, workdir, is_last=False).values())
        pairs = list(zip(finished[::2], finished[1::2], strict=True))
        rows.append(summarize(pairs))
        table = Table(COLUMNS, rows)
        content = {
            "dataset": given.dataset,
            "preset": given.preset,
            "cpu": cpu_name(),
            "command": own_command(),
            "rows": rows,
        }
        name = f"precision-{given.dataset}"
        files = {f"{name}.json": content, f"{name}.md": table.to_markdown()}
        write_all(workdir, files)
    print(table.to_text(), end="")


def define_flags() -> None:
    flags.DEFINE_list("models", MODELS, "models to train, with commas")
    cli.define_settings(("dataset", "preset"), dataset="mnist", preset="default")
    study_flags.define_seeds(0, 1, 2, 3, 4)
    study_flags.define_folders("runs/precision")


main = cli.make_main(study, "finished runs are kept")

if __name__ == "__main__":
    define_flags()
    app.run(main)
