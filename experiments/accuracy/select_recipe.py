"""Which recipe for a model is best, told without the test set?

    python -m experiments.accuracy.select_recipe --model=resnet --epochs=12
        --candidate="augment=shift" --candidate="augment=elastic"
        --candidate="augment=elastic ema_decay=0.999" --folds=2,5

Cross-validation over five folds of the training images, each of whole blocks of them:
what is held out is of other writers, as the test set is. Candidates are settings on top
of a preset, all with as many epochs. They are trained on the first folds; the better
half of them on further folds, and so on (successive halving, Jamieson and Talwalkar,
2016); what was dropped stays in the report. Differences are between the same images
with two recipes, so that their standard error is that of the images on which the two
disagree. That of the loss, to which every image counts, often tells more than that of
the accuracy. With the same --folds finished ones are not trained again. Writes
selection.json, .md and report.html under --workdir.
"""

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from experiments.accuracy.selection import candidates, folds
from experiments.common import study_flags
from experiments.common.machine import cpu_name
from experiments.common.report import Page, own_command, write_all
from experiments.common.table import Table, column
from mnist_jax import cli, digests, training_setup
from mnist_jax.config import Config, ConfigError, make_config
from mnist_jax.formats import counted
from mnist_jax.parallel import devices

NUM_FOLDS = 5

COLUMNS = (
    column("candidate", "candidate"),
    column("folds", "num_folds", "{:d}"),
    column("held-out accuracy", "accuracy", "{:.3%}"),
    column("standard error", "standard_error", "{:.3f}"),
    column("against the best, points", "difference", "{:+.3f}"),
    column("its standard error", "difference_error", "{:.3f}"),
    column("held-out loss", "loss", "{:.4f}"),
    column("against the best", "loss_difference", "{:+.4f}"),
    column("its standard error", "loss_difference_error", "{:.4f}"),
    column("min per fold", "minutes", "{:.1f}"),
)


def compare(
    results: Mapping[str, folds.HeldOut], labels: np.ndarray
) -> list[dict[str, Any]]:
    """A row for each candidate, the best of those with most folds first.

    Args:
      results: by candidate.
      labels: int [M], of the training set.

    Returns:
      Rows of accuracies from 0 to 1 and, in percentage points, standard errors and
      differences from the first row on the images that both have held out.
    """
    correct = {name: held.correct(labels) for name, held in results.items()}
    losses = {name: held.losses(labels) for name, held in results.items()}
    order = sorted(results, key=lambda name: _rank(correct[name], losses[name]))
    best, best_losses = correct[order[0]], losses[order[0]]
    rows = []
    for name in order:
        own = correct[name]
        shared = own[~np.isnan(own)]
        both = ~np.isnan(own) & ~np.isnan(best)
        gap, loss_gap = (own - best)[both], (losses[name] - best_losses)[both]
        num_folds = round(NUM_FOLDS * len(shared) / len(labels))
        rows.append(
            {
                "candidate": name,
                "num_folds": num_folds,
                "num_images": len(shared),
                "num_wrong": int((1 - shared).sum()),
                "accuracy": float(shared.mean()),
                "standard_error": 100 * _standard_error(shared),
                "difference": 100 * float(gap.mean()),
                "difference_error": 100 * _standard_error(gap),
                "loss": float(np.nanmean(losses[name])),
                "loss_difference": float(loss_gap.mean()),
                "loss_difference_error": _standard_error(loss_gap),
                "only_best_correct": int((gap < 0).sum()),
                "only_this_correct": int((gap > 0).sum()),
                "minutes": results[name].seconds / 60 / num_folds,
            }
        )
    return rows


def _rank(correct: np.ndarray, losses: np.ndarray) -> tuple[float, ...]:
    """Smaller is better: more folds, then accuracy, then the loss."""
    own = correct[~np.isnan(correct)]
    return -len(own), -own.mean(), float(np.nanmean(losses))


def _standard_error(values: np.ndarray) -> float:
    return float(values.std() / math.sqrt(len(values)))


def select(
    configs: Mapping[str, Config], rungs: Sequence[int], workdir: Path
) -> list[dict[str, Any]]:
    """Trains by successive halving; returns the rows of `compare`.

    Args:
      configs: by candidate.
      rungs: folds until which candidates are trained, in rising order.
      workdir: of the study.
    """
    first = next(iter(configs.values()))
    labels = training_setup.load_data(first).train_labels
    parts: dict[str, list[folds.HeldOut]] = {name: [] for name in configs}
    alive, done = list(configs), 0
    for end in rungs:
        for name in alive:
            config, own = configs[name], list(range(done, end))
            print(f"folds {done + 1} to {end}: {name}", file=sys.stderr)
            folder = workdir / f"{_digest(config)}-{done}-{end}"
            parts[name].append(folds.train(config, own, folder))
        joined = {name: folds.join(own) for name, own in parts.items()}
        rows = compare(joined, labels)
        print(Table(COLUMNS, rows).to_text(), file=sys.stderr)
        better = [row["candidate"] for row in rows if row["candidate"] in alive]
        alive, done = better[: max(2, -(-len(alive) // 2))], end
    return rows


def _digest(config: Config) -> str:
    """Names the folder of a recipe."""
    return digests.of_json(config.identity())[:12]


def make_configs(given: flags.FlagValues) -> dict[str, Config]:
    """Of each candidate.

    Raises:
      ConfigError: a flag is wrong.
    """
    study_flags.check_is_known(given.dataset)
    shared = dict(
        epochs=given.epochs,
        validation_fraction=1 / NUM_FOLDS,
        validation_by=given.validation_by,
        seed=given.seed,
        **study_flags.folders(given),
    )
    configs = {}
    for text in given.candidate or [""]:
        own = candidates.parse(text)
        config = make_config(
            given.model, given.dataset, given.preset, **{**shared, **own}
        )
        if config in configs.values():
            raise ConfigError(f"--candidate={text}: give each once")
        configs[candidates.name(own)] = config
    return configs


def parse_rungs(texts: Sequence[str]) -> list[int]:
    """The numbers of --folds.

    Raises:
      ConfigError: they do not rise, or there are not so many folds.
    """
    try:
        rungs = [int(text) for text in texts]
        if not rungs or sorted(set(rungs)) != rungs:
            raise ValueError
        if rungs[0] < 1 or rungs[-1] > NUM_FOLDS:
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"--folds={','.join(texts)}: expected rising whole numbers from 1 to "
            f"{NUM_FOLDS}, with commas, as in 2,5"
        ) from None
    return rungs


def study() -> None:
    given = flags.FLAGS
    rungs, configs = parse_rungs(given.folds), make_configs(given)
    workdir = study_flags.workdir(given)
    workdir = workdir or Path(f"runs/selection-{given.dataset}-{given.model}")
    devices.start(given.num_devices or 0)
    rows = select(configs, rungs, workdir)
    table = Table(COLUMNS, rows)
    config = next(iter(configs.values()))
    title = (
        f"{given.model} on {given.dataset}: {counted(len(configs), 'candidate')}, "
        f"{counted(config.epochs, 'epoch')}"
    )
    page = Page(title)
    page.table(table)
    content = {
        "command": own_command(),
        "hardware": cpu_name(),
        "model": given.model,
        "dataset": given.dataset,
        "configs": {k: dataclasses.asdict(x) for k, x in configs.items()},
        "rows": rows,
    }
    files = {
        "selection.json": content,
        "selection.md": table.to_markdown(),
        "report.html": page,
    }
    write_all(workdir, files)
    print(table.to_text(), end="")


def define_flags() -> None:
    shared = ("model", "dataset", "preset", "epochs", "seed", "num_devices")
    cli.define_settings(
        (*shared, "validation_by"),
        model="cnn",
        dataset="mnist",
        preset="default",
        validation_by="block",
    )
    flags.DEFINE_multi_string(
        "candidate", None, "settings on top of the preset; once for each candidate"
    )
    flags.DEFINE_list(
        "folds", ["2", "5"], "folds after which the worse half is dropped, with commas"
    )
    study_flags.define_folders("runs/selection-<dataset>-<model>")


main = cli.make_main(study, "finished folds are kept", lambda: True)

if __name__ == "__main__":
    define_flags()
    app.run(main)
