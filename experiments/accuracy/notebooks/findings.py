"""What the runs show of each notebook's claims: sentences and charts."""

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.accuracy.notebooks.recipes import Notebook, Tuning
from experiments.common import charts, prediction_charts
from experiments.common.runs import Run, mean_std
from mnist_jax import plots
from mnist_jax.formats import format_loss
from mnist_jax.storage import records

Runs = Mapping[str, Sequence[Run]]  # by recipe, one for each seed


def of(key: str, runs: Runs) -> list[str]:
    """Sentences for the notebook with this key."""
    sentences = {
        "rows": _steadiness,
        "lstm": _losses,
        "mlp": lambda runs: [_confused(own) for own in runs.values()],
        "ann_cnn": lambda runs: [],
        "relu": lambda runs: _losses(runs) + [_confused(next(iter(runs.values())))],
    }
    return sentences[key](runs)


def tuned(tuning: Tuning, seeds: Sequence[Run]) -> str:
    """The settings that validated best."""
    names = [text.partition("=")[0] for text in tuning.vary]
    values = [f"{name} {getattr(seeds[0].config, name)}" for name in names]
    return f"{tuning.recipe.name}: {', '.join(values)} validated best."


def draw(notebook: Notebook, runs: Runs) -> dict[str, tuple[str, bytes]]:
    """The notebook's charts: name -> (caption, PNG)."""
    first = next(iter(runs.values()))[0]
    names = first.result["class_names"]
    on = f"{notebook.title} on {first.config.dataset}"
    own = {
        "curves": (
            "Learning curves: mean over seeds, band from lowest to highest.",
            charts.curves(
                {name: [r.epochs for r in seeds] for name, seeds in runs.items()}, on
            ),
        )
    }
    if notebook.key != "lstm":
        own["confusion"] = (
            "Mistakes of all seeds together.",
            prediction_charts.confusions(
                {name: _matrix(seeds) for name, seeds in runs.items()}, names, on
            ),
        )
    best = max(
        runs.values(), key=lambda seeds: seeds[0].epochs[-1]["validation_accuracy"]
    )
    plots.draw_all(best[0].workdir)
    png = (best[0].workdir / records.FIGURES / "predictions.png").read_bytes()
    own["predictions"] = ("Test images, their labels and the predictions.", png)
    return own


def _steadiness(runs: Runs) -> list[str]:
    """How much seeds differ, and how often an epoch is a step back."""
    sentences = []
    for name, seeds in runs.items():
        curves = np.array([[e["validation_accuracy"] for e in r.epochs] for r in seeds])
        apart = curves.std(0, ddof=1).mean() if len(curves) > 1 else 0.0
        back = (np.diff(curves, axis=1) < 0).mean() if curves.shape[1] > 1 else 0.0
        sentence = f"{name}: {back:.0%} of the epochs are a step back"
        if len(curves) > 1:
            sentence += (
                f"; seeds are {100 * apart:.2f} percentage points apart (standard "
                "deviation of the validation accuracy, mean over epochs)"
            )
        sentences.append(f"{sentence}.")
    return sentences


def _losses(runs: Runs) -> list[str]:
    """Where the validation loss is lowest, and how far training goes below it."""
    sentences = []
    for name, seeds in runs.items():
        validation = np.mean(
            [[e["validation_loss"] for e in run.epochs] for run in seeds], axis=0
        )
        train, _ = mean_std([run.epochs[-1]["train_loss"] for run in seeds])
        lowest = validation.argmin()
        sentences.append(
            f"{name}: validation loss is lowest after epoch {lowest + 1} "
            f"({format_loss(validation[lowest])}) and ends at "
            f"{format_loss(validation[-1])}, training loss at {format_loss(train)}."
        )
    return sentences


def _confused(seeds: Sequence[Run], shown: int = 5) -> str:
    """The pairs of classes that are taken for each other most often."""
    matrix = _matrix(seeds)
    names = seeds[0].result["class_names"]
    both = np.triu(matrix + matrix.T, 1)
    order = np.argsort(-both, axis=None, kind="stable")[:shown]
    pairs = [
        f"{names[a]} with {names[b]} ({both[a, b]})"
        for a, b in zip(*np.unravel_index(order, both.shape), strict=True)
        if both[a, b]
    ]
    # Of digits alone something is claimed.
    known = ((3, 8), (4, 9)) if names == list("0123456789") else ()
    claimed = ", ".join(
        f"{a} with {b} has place {1 + (both > both[a, b]).sum()}"
        if both[a, b]
        else f"{a} is never confused with {b}"
        for a, b in known
    )
    most = (
        f"Confused most, of {both.sum()} mistakes in {len(seeds)} run(s): "
        f"{', '.join(pairs)}"
    )
    return f"{most}; {claimed}." if claimed else f"{most}."


def _matrix(seeds: Sequence[Run]) -> np.ndarray:
    """int [K, K], the sum of the runs' confusion matrices."""
    return np.sum([run.result["confusion_matrix"] for run in seeds], axis=0)
