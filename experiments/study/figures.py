"""Figures of scores against epochs, costs and claims: plain data -> PNG files."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker

from mnist_jax.plots.canvas import new_figure, to_png

# Okabe and Ito's palette, which colour-blind readers can tell apart, then by dashes.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000")
_DASHES = ("-", "--", ":")

Epochs = Sequence[Mapping[str, Any]]  # the lines of a run's metrics.jsonl


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
