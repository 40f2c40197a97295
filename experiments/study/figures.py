"""The studies' figures: functions of plain data that return PNG files."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure

from mnist_jax.metrics import Reliability
from mnist_jax.plots.canvas import mosaic, new_figure

# Okabe and Ito's palette, which colour-blind readers can tell apart, then by dashes.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000")
_DASHES = ("-", "--", ":")

Epochs = Sequence[Mapping[str, Any]]  # the lines of a run's metrics.jsonl


def to_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def curves(runs: Mapping[str, Sequence[Epochs]], title: str) -> bytes:
    """Loss and validation accuracy by epoch: the mean over seeds, and from the lowest
    to the highest as a band.

    Args:
      runs: for each name the runs that differ by seed alone.
      title: of the figure.
    """
    figure = new_figure(14, 4.6, title)
    keys = ("train_loss", "validation_loss", "validation_accuracy")
    lowest = {}
    for axis, key in zip(figure.subplots(1, 3), keys, strict=True):
        for i, (name, seeds) in enumerate(runs.items()):
            values = np.array([[epoch[key] for epoch in run] for run in seeds], float)
            number = np.arange(1, values.shape[1] + 1)
            colour, dash = _style(i)
            marker = "o" if values.shape[1] < 3 else None
            axis.plot(
                number, values.mean(0), dash, color=colour, label=name, marker=marker
            )
            if len(values) > 1:
                low, high = values.min(0), values.max(0)
                axis.fill_between(number, low, high, color=colour, alpha=0.2, lw=0)
            lowest.setdefault(key, []).extend(values.mean(0))
        axis.set(xlabel="epoch", ylabel=key.replace("_", " "))
        axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        if key.endswith("loss"):
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter(ticker.FuncFormatter(lambda y, _: f"{y:g}"))
            axis.yaxis.set_minor_formatter(ticker.FuncFormatter(_two_and_five))
        else:
            # The first epochs would press the rest of the curves together.
            lowest_shown = np.quantile(lowest[key], 0.1)
            axis.set_ylim(lowest_shown, 1 + 0.02 * (1 - lowest_shown))
            axis.yaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=1))
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(8, len(labels)),
        frameon=False,
    )  # fmt: skip
    return to_png(figure)


def pareto(rows: Sequence[Mapping[str, Any]], title: str) -> bytes:
    """Test error against parameters and against training seconds; rows of
    `runs.summarize`. A line joins those that no other beats in both."""
    figure = new_figure(12, 4.6, title)
    names = {"num_params": "parameters", "train_seconds": "training, seconds"}
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (key, label) in zip(axes, names.items(), strict=True):
        points = [(row[key], 100 * (1 - row["test_accuracy"])) for row in rows]
        ranks = np.argsort(np.argsort([x for x, _ in points]))
        for i, (row, (x, y)) in enumerate(zip(rows, points, strict=True)):
            axis.errorbar(
                x, y, 100 * row["spread"], fmt="o", color=_style(i)[0], capsize=3
            )
            axis.annotate(
                row["model"], (x, y), (6, -13 if ranks[i] % 2 else 4),
                textcoords="offset points",
            )  # fmt: skip
        front = [p for p in points if not any(_beats(q, p) for q in points)]
        axis.plot(*zip(*sorted(front), strict=True), color="0.6", zorder=0)
        axis.set(xscale="log", yscale="log", xlabel=label)
        axis.margins(x=0.15)
        axis.grid(alpha=0.3, which="both")
        axis.yaxis.set_major_formatter(ticker.FuncFormatter(lambda y, _: f"{y:g}"))
        axis.yaxis.set_minor_formatter(ticker.FuncFormatter(lambda y, _: f"{y:g}"))
        axis.xaxis.set_major_formatter(ticker.FuncFormatter(_number))
        axis.xaxis.set_minor_formatter(ticker.NullFormatter())
    axes[0].set_ylabel("test error, %")
    return to_png(figure)


def per_class(
    accuracies: Mapping[str, Sequence[float]], names: Sequence[str], title: str
) -> bytes:
    """Accuracy on each class, K of them, by model, as a table in colour."""
    values = 100 * np.array(list(accuracies.values()))
    figure = new_figure(1.2 + 0.85 * len(names), 1.4 + 0.42 * len(values), title)
    axis = figure.subplots()
    axis.imshow(values, cmap="YlGnBu", vmin=values.min(), vmax=100, aspect="auto")
    middle = (values.min() + 100) / 2
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if value > middle else "black"
        axis.text(
            column, row, f"{value:.1f}", ha="center", va="center", color=colour
        )  # fmt: skip
    axis.set_yticks(range(len(values)), list(accuracies))
    axis.set_xticks(range(len(names)), names)
    axis.tick_params(length=0)
    axis.set_xlabel("accuracy on the test images of each class, %")
    return to_png(figure)


def confusions(
    matrices: Mapping[str, np.ndarray], names: Sequence[str], title: str
) -> bytes:
    """Confusion matrices side by side, int [K, K], rows are the true classes.

    Colour is for the mistakes; what is right is left white.
    """
    columns = min(4, len(matrices))
    lines = -(-len(matrices) // columns)
    figure = new_figure(3.7 * columns, 3.8 * lines + 0.5, title)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    wrong = {name: m - np.diag(m.diagonal()) for name, m in matrices.items()}
    highest = max(1, *(m.max() for m in wrong.values()))
    for axis, (name, matrix) in zip(axes, wrong.items(), strict=False):
        axis.imshow(matrix, cmap="OrRd", vmin=0, vmax=highest)
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                colour = "white" if count > 0.6 * highest else "black"
                axis.text(
                    column, row, count, ha="center", va="center", fontsize=7,
                    color=colour,
                )  # fmt: skip
        axis.set_title(f"{name}: {matrix.sum():,} wrong", fontsize=11)
        for ticks, place in ((axis.set_xticks, 90), (axis.set_yticks, 0)):
            long = max(map(len, names)) > 3
            ticks(range(len(names)), names, rotation=place if long else 0, fontsize=8)
    for axis in axes[len(matrices) :]:
        axis.set_visible(False)
    figure.supxlabel("predicted", fontsize=11)
    figure.supylabel("actual", fontsize=11)
    return to_png(figure)


def reliability(models: Mapping[str, Reliability], title: str) -> bytes:
    """Accuracy against confidence; the size of a point is its number of images."""
    columns = min(4, len(models))
    lines = -(-len(models) // columns)
    figure = new_figure(3.2 * columns, 3.3 * lines + 0.5, title)
    axes = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for axis, (name, bins) in zip(axes.ravel(), models.items(), strict=False):
        axis.plot([0, 1], [0, 1], color="0.7", zorder=0)
        axis.plot(bins.confidence, bins.accuracy, color=_COLOURS[0], lw=1)
        sizes = 8 + 120 * bins.count / bins.count.sum()
        axis.scatter(bins.confidence, bins.accuracy, sizes, color=_COLOURS[0])
        axis.set_title(f"{name}: ECE {bins.error:.2%}", fontsize=11)
        axis.grid(alpha=0.3)
        axis.set_aspect("equal")
    for axis in axes.ravel()[len(models) :]:
        axis.set_visible(False)
    figure.supxlabel("confidence: probability given to the answer", fontsize=11)
    figure.supylabel("share of such answers that are right", fontsize=11)
    return to_png(figure)


def hard_images(
    images: np.ndarray,
    labels: np.ndarray,
    answers: np.ndarray,
    names: Sequence[str],
    title: str,
) -> bytes:
    """Images that all got wrong: uint8 [N, 28, 28], int [N] and int [models, N]."""
    if not len(images):
        figure = new_figure(6, 1.5, title)
        figure.text(0.5, 0.3, "No image is wrong in all of them.", ha="center")
        return to_png(figure)
    texts = []
    for label, given in zip(labels, answers.T, strict=True):
        classes, counts = np.unique(given, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        said = "/".join(names[i] for i in classes[order])
        texts.append(f"{names[label]} → {said}")
    figure, _, _ = mosaic(images, texts, 10, 12, title)
    figure.supxlabel("true → what the models say, the most frequent first", fontsize=10)
    return to_png(figure)


def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    labels: tuple[str, str],
    title: str,
    bands: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    **axis_settings: Any,
) -> bytes:
    """Curves (x, y) by name, with bands (low, high) around those that have one."""
    figure = new_figure(7, 4.2, title)
    axis = figure.subplots()
    for i, (name, (x, y)) in enumerate(series.items()):
        colour, dash = _style(i)
        axis.plot(x, y, dash, color=colour, marker="o", markersize=4, label=name)
        if bands and name in bands:
            axis.fill_between(x, *bands[name], color=colour, alpha=0.2, lw=0)
    axis.set(xlabel=labels[0], ylabel=labels[1], **axis_settings)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    return to_png(figure)


def _two_and_five(value: float, _: int) -> str:
    """The text of a tick between powers of ten, of two of the eight there are."""
    text = f"{value:g}"
    return text if text.strip("0.") in ("2", "5") else ""


def _number(value: float, _: int) -> str:
    """A tick's text, never with an exponent."""
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def _style(number: int) -> tuple[str, str]:
    return (
        _COLOURS[number % len(_COLOURS)],
        _DASHES[number // len(_COLOURS) % len(_DASHES)],
    )


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether `one` is better in one of the two, and in neither worse."""
    return one != other and one[0] <= other[0] and one[1] <= other[1]


def claims(rows: Sequence[Mapping[str, Any]], title: str) -> bytes:
    """Test error of recipes beside what is claimed of them; rows of reproduce.py."""
    figure = new_figure(9, 1.2 + 0.34 * len(rows), title)
    axis = figure.subplots()
    systems = list(dict.fromkeys(row["system"] for row in rows))
    for i, row in enumerate(rows):
        colour = _COLOURS[systems.index(row["system"]) % len(_COLOURS)]
        errors = [100 * (1 - x) for x in row["test_accuracies"]]
        axis.plot(errors, [i] * len(errors), "o", color=colour, markersize=5)
        if row["at_least"]:
            claimed = 100 * (1 - row["at_least"])
            axis.plot([claimed], [i], "|", color="black", markersize=16, mew=2)
    axis.plot([], [], "|", color="black", markersize=12, mew=2, ls="", label="claim")
    axis.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axis.invert_yaxis()
    axis.set(xscale="log", xlabel="test error, %; a point for each seed")
    axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda x, _: f"{x:g}"))
    axis.xaxis.set_minor_formatter(ticker.FuncFormatter(lambda x, _: f"{x:g}"))
    axis.grid(alpha=0.3, which="both", axis="x")
    other = axis.secondary_yaxis("right")
    middles = [
        np.mean([i for i, row in enumerate(rows) if row["system"] == system])
        for system in systems
    ]
    other.set_yticks(middles, systems)
    other.tick_params(length=0)
    for tick, _ in zip(other.get_yticklabels(), systems, strict=True):
        tick.set_color(_COLOURS[systems.index(tick.get_text()) % len(_COLOURS)])
    if any(row["at_least"] for row in rows):
        axis.legend(frameon=True, loc="best")
    return to_png(figure)
