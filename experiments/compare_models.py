"""Which model is best, at what cost, and is it really better?

    python experiments/compare_models.py --datasets=mnist
    python experiments/compare_models.py --models=cnn,gru --seeds=0,1,2,3,4

Trains each model's preset with each seed on each data set, one run after the other in
folders under --workdir; finished runs are not repeated. Then draws, for each data set,
learning curves with bands, accuracy against parameters and against seconds, accuracy on
each class, confusion matrices, calibration, and the images that every model gets wrong;
and asks whether the best two differ by more than chance. Which are the best two is
decided on the validation part. Where a figure shows one set of answers for a model,
they are those of the mean probabilities of its seeds.

Writes compare-<dataset>.json, .md, a folder of figures and report-<dataset>.html. All
presets with three seeds take 25 minutes on MNIST on two cores, and
`--datasets=digits --preset=quick --seeds=0` takes two.

Result: on MNIST resnet 99.51%, cnn 99.40, lstm 99.26, gru 99.25, lenet5 98.93, mlp
98.86, rnn 98.38, linear 92.67. Between resnet and cnn, one seed of three shows more
than chance.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from study import answers as answers_of
from study import figures, program, runs
from study.page import Page, markdown, write_all
from study.runs import Run

from mnist_jax import datasets, metrics, models, parallel
from mnist_jax.config import PRESET_NAMES, ConfigError, make_config

_HARD = 40  # images shown

_MODELS = flags.DEFINE_list("models", list(models.MODELS), "models to train")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "seeds to train each with")
_DATASETS = flags.DEFINE_list("datasets", ["auto"], "data sets to train on")
_PRESET = flags.DEFINE_enum("preset", "default", PRESET_NAMES, "as in launch.py")
_EPOCHS = flags.DEFINE_integer("epochs", None, "instead of the preset's", lower_bound=1)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "as in launch.py")
_RAW_DIR = flags.DEFINE_string("raw_dir", None, "as in launch.py")
_WORKDIR = flags.DEFINE_string("workdir", "runs/compare", "where to write")

Means = Mapping[str, np.ndarray]  # by model, the mean probabilities of its seeds
Runs = Mapping[str, Sequence[Run]]  # by model, one for each seed


def check_flags() -> None:
    """Tells wrong settings before data is fetched."""
    for name in _DATASETS.value:
        if name not in datasets.NAMES:
            raise ConfigError(
                f"--datasets={name}: expected some of {', '.join(datasets.NAMES)}"
            )
    if not _DATASETS.value:
        raise ConfigError("--datasets=: give one or more, with commas")
    if len(_MODELS.value) < 2:
        raise ConfigError("--models: give two or more to compare, with commas")
    for flag in (_MODELS, _DATASETS):
        if len(set(flag.value)) < len(flag.value):
            raise ConfigError(f"--{flag.name}: give each once")
    make_configs("mnist")


def make_configs(dataset: str) -> dict[str, dict[str, Any]]:
    """For each model its runs' configs by the names of their folders."""
    configs = {}
    for model in _MODELS.value:
        configs[model] = {
            f"{dataset}-{_PRESET.value}-{model}-{seed}": make_config(
                model,
                dataset,
                _PRESET.value,
                seed=seed,
                epochs=_EPOCHS.value,
                **runs.folders(flags.FLAGS),
            )
            for seed in runs.seeds(_SEEDS.value)
        }
        for config in configs[model].values():
            models.build_model(config)
    return configs


def mean_probabilities(own: Sequence[Run]) -> np.ndarray:
    """Of every test image, over the seeds: float [N, K]."""
    return np.mean([run.predictions.probabilities for run in own], axis=0)


def summarize(all_runs: Runs, means: Means) -> list[dict[str, Any]]:
    """One row per model; see `runs.summarize`."""
    rows = []
    for model, own in all_runs.items():
        bins = [
            metrics.reliability(run.predictions.probabilities, run.predictions.labels)
            for run in own
        ]
        classes = [run.result["per_class_accuracy"] for run in own]
        rows.append(
            {
                **runs.summarize(own),
                "calibration_error": float(np.mean([x.error for x in bins])),
                "per_class_accuracy": np.mean(classes, axis=0).tolist(),
                "ensemble_accuracy": float(
                    (means[model].argmax(-1) == own[0].predictions.labels)
                    .mean()
                ),
            }
        )  # fmt: skip
    return rows


def test_best_two(rows: Sequence[Mapping[str, Any]], all_runs: Runs) -> dict[str, Any]:
    """McNemar's test between the two that validate best, seed by seed."""
    order = sorted(rows, key=lambda row: -row["validation_accuracy"])
    best, second = order[0]["model"], order[1]["model"]
    pairs = [
        {
            "seed": one.config.seed,
            "only_best_right": int((one.right & ~other.right).sum()),
            "only_second_right": int((~one.right & other.right).sum()),
            "p_value": metrics.mcnemar(one.right, other.right),
        }
        for one, other in zip(all_runs[best], all_runs[second], strict=True)
    ]
    return {"best": best, "second": second, "pairs": pairs}


def verdict(test: Mapping[str, Any]) -> str:
    """The test in a sentence."""
    best, second = test["best"], test["second"]
    pairs = "; ".join(
        f"seed {x['seed']}: {x['only_best_right']} to {x['only_second_right']}, "
        f"p = {x['p_value']:.2g}"
        for x in test["pairs"]
    )
    return (
        f"{best} and {second} validate best. Test images that {best} alone has right "
        f"to those that {second} alone has right, with McNemar's exact test: {pairs}."
    )


HEADS = ("model", "parameters", "epochs", "test accuracy", "lowest", "ECE", "training")


def cells(row: Mapping[str, Any]) -> list[str]:
    return [
        row["model"],
        f"{row['num_params']:,}",
        str(row["epochs"]),
        f"{row['test_accuracy']:.2%} ± {100 * row['spread']:.2f}",
        f"{min(row['test_accuracies']):.2%}",
        f"{row['calibration_error']:.2%}",
        f"{row['train_seconds']:.0f} s",
    ]


def draw(
    dataset: datasets.Dataset,
    rows: Sequence[Mapping[str, Any]],
    all_runs: Runs,
    means: Means,
) -> dict[str, tuple[str, bytes]]:
    """The figures: file name -> (caption, PNG)."""
    names, labels = dataset.class_names, dataset.test_labels
    answers = np.array([p.argmax(-1) for p in means.values()])
    hard = np.flatnonzero((answers != labels).all(0))
    # Those first of which the models are surest.
    sure = np.mean([p[hard].max(-1) for p in means.values()], axis=0)
    shown = hard[np.argsort(-sure, kind="stable")][:_HARD]
    seeds = f"{len(_SEEDS.value)} seed{'s'[: len(_SEEDS.value) > 1]}"
    on = f"{dataset.name}, {seeds}"
    which = f"{len(shown)} of " if len(shown) < len(hard) else ""
    return {
        "curves": (
            "Learning curves: mean over seeds, band from lowest to highest.",
            figures.curves(
                {m: [run.epochs for run in own] for m, own in all_runs.items()}, on
            ),
        ),
        "pareto": (
            "Test error against cost; the line joins those that none beats in both.",
            figures.pareto(rows, on),
        ),
        "per_class": (
            "Accuracy on each class, mean over seeds.",
            answers_of.per_class(
                {row["model"]: row["per_class_accuracy"] for row in rows}, names, on
            ),
        ),
        "confusion": (
            "Mistakes of the mean probabilities over seeds.",
            answers_of.confusions(
                {
                    model: metrics.confusion_matrix(p.argmax(-1), labels, len(names))
                    for model, p in means.items()
                },
                names,
                on,
            ),
        ),
        "reliability": (
            "Calibration of the first seed's run.",
            answers_of.reliability(
                {
                    m: metrics.reliability(own[0].predictions.probabilities, labels)
                    for m, own in all_runs.items()
                },
                f"{dataset.name}, seed {_SEEDS.value[0]}",
            ),
        ),
        "hard": (
            "Images that every model gets wrong.",
            answers_of.hard_images(
                dataset.test_images[shown, ..., 0],
                labels[shown],
                answers[:, shown],
                names,
                f"{which}{len(hard)} test images that all models get wrong: {on}",
            ),
        ),
    }


def compare(name: str, workdir: Path) -> None:
    """Trains and reports on one data set."""
    began = time.monotonic()
    name = datasets.prepare(name, _DATA_DIR.value, _RAW_DIR.value)
    by_model = make_configs(name)
    flat = {key: c for own in by_model.values() for key, c in own.items()}
    trained = runs.train_all(flat, workdir)
    all_runs = {m: [trained[key] for key in own] for m, own in by_model.items()}
    means = {model: mean_probabilities(own) for model, own in all_runs.items()}
    rows = summarize(all_runs, means)
    test = test_best_two(rows, all_runs)
    dataset = datasets.load(name, _DATA_DIR.value, _RAW_DIR.value)
    drawn = draw(dataset, rows, all_runs, means)
    content = {"dataset": name, "rows": rows, "test": test}
    lines = [cells(row) for row in rows]
    text = f"{markdown(HEADS, lines)}\n{verdict(test)}\n"

    page = Page(f"Models on {name}")
    page.table(HEADS, lines)
    page.text(verdict(test))
    for key, (caption, png) in drawn.items():
        page.figure(png, caption)
        write_all(workdir / f"figures-{name}", {f"{key}.png": png})
    files = {f"compare-{name}.json": content, f"compare-{name}.md": text}
    write_all(workdir, files | {f"report-{name}.html": page})
    minutes = (time.monotonic() - began) / 60
    print(f"{text}\n{minutes:.1f} minutes; {workdir / f'report-{name}.html'}")


def study() -> None:
    check_flags()
    parallel.start()
    for name in _DATASETS.value:
        compare(name, Path(_WORKDIR.value))


if __name__ == "__main__":
    app.run(program.main_of(study))
