"""Charts of scores, times and claims: plain data -> PNG files."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker

from mnist_jax.plots import style

Epochs = Sequence[Mapping[str, Any]]  # the lines of a run's metrics.jsonl
Rows = Sequence[Mapping[str, Any]]  # of runs.summarize, one for each model


def results(rows: Rows, title: str) -> bytes:
    """Test error of each model on a logarithmic axis, the best model first.

    The mean over seeds with its standard deviation; beside them mean accuracy and
    parameters.

    Args:
      rows: with 'model', 'test_accuracy', 'std' (0 to 1; None of one seed) and
        'num_params'.
      title: of the figure.
    """
    rows = sorted(rows, key=lambda row: -row["test_accuracy"])
    figure = style.new_figure(10, 1.5 + 0.4 * len(rows), title)
    axis, table = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1.3))
    heads = ("accuracy, %", "parameters")
    places = (0.5, 1.0)  # of the columns' right ends
    for i, row in enumerate(rows):
        mean, std, spread = row["test_accuracy"], row["std"], ""
        if std is not None:
            ends = _error([mean + std, mean - std])
            axis.plot(
                ends, [i, i], color=style.BLUE, alpha=0.4, lw=7, solid_capstyle="butt"
            )
            spread = f" ± {100 * std:.2f}"
        axis.plot(_error([mean]), [i], "|", color=style.BLUE, mew=3.5, ms=19)
        texts = f"{100 * mean:.2f}{spread}", f"{row['num_params']:,}"
        for place, text in zip(places, texts, strict=True):
            table.text(place, i, text, ha="right", va="center")
    for place, text in zip(places, heads, strict=True):
        table.text(place, -0.8, text, ha="right", va="center", weight="bold")
    axis.set_yticks(range(len(rows)), [row["model"] for row in rows], fontsize=11)
    label = "test error, %: mean and standard deviation over seeds"
    axis.set(xscale="log", xlabel=label, ylim=(len(rows) - 0.4, -1.2))
    style.plain_log_ticks(axis.xaxis)
    style.clean(axis)
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0)
    table.set_axis_off()
    return style.to_png(figure)


def bars(
    series: Mapping[str, Sequence[float]],
    groups: Sequence[str],
    label: str,
    title: str,
    limits: tuple[str, Sequence[float]] | None = None,
) -> bytes:
    """Bars side by side in groups on a logarithmic axis, as speeds by framework.

    Args:
      series: name -> G values above 0, one for each group; nan for no bar.
      groups: G names.
      label: of the axis of values.
      title: of the figure.
      limits: name and G values, drawn as a line across each group.
    """
    figure = style.new_figure(10, 5, title)
    axis = figure.subplots()
    left = np.arange(len(groups)) - 0.42
    width = 0.84 / len(series)
    handles = []
    for i, (name, values) in enumerate(series.items()):
        place = left + width * (i + 0.5)
        colour = style.series_style(i)["color"]
        handles.append(axis.bar(place, values, 0.92 * width, color=colour, label=name))
        for x, value in zip(place, values, strict=True):
            if np.isnan(value):
                continue
            # Inside the bar, where no limit's line crosses it.
            axis.text(
                x, value, f"{value:,.0f} ", ha="center", va="top", rotation=90,
                fontsize=8,
                color="white" if colour in (style.BLUE, style.BLACK) else "black",
            )  # fmt: skip
    numbers = np.concatenate([*series.values(), limits[1] if limits else []])
    if limits:
        lines = axis.hlines(limits[1], left, left + 0.84, color="black", linewidth=1.6)
        lines.set_label(limits[0])
        handles.append(lines)
    # Bars on a logarithmic scale have no natural foot; this leaves room for a number.
    low = np.nanmin([*series.values()]) / 6
    axis.set(yscale="log", ylim=(low, 2 * np.nanmax(numbers)), ylabel=label)
    axis.set_xticks(range(len(groups)), groups)
    axis.tick_params(axis="x", length=0)
    style.plain_log_ticks(axis.yaxis)
    style.clean(axis, "y")
    style.legend_below(figure, handles)
    return style.to_png(figure)


def curves(runs: Mapping[str, Sequence[Epochs]], title: str) -> bytes:
    """Losses and validation error by epoch: the mean over seeds, and a band from the
    lowest to the highest.

    Args:
      runs: for each name the runs that differ by seed alone.
      title: of the figure.
    """
    figure = style.new_figure(14, 4.6, title)
    keys = ("train_loss", "validation_loss", "validation_accuracy")
    labels = ("train loss", "validation loss", "validation error, %")
    longest = max(len(run) for seeds in runs.values() for run in seeds)
    for axis, key, label in zip(figure.subplots(1, 3), keys, labels, strict=True):
        for i, (name, seeds) in enumerate(runs.items()):
            values = np.array([[epoch[key] for epoch in run] for run in seeds], float)
            if key == "validation_accuracy":
                values = _error(values)
            number = np.arange(1, values.shape[1] + 1)
            look = style.series_style(i) | {"marker": "o" if len(number) < 3 else ""}
            axis.plot(number, values.mean(0), label=name, **look)
            if len(values) > 1:
                band = values.min(0), values.max(0)
                axis.fill_between(number, *band, color=look["color"], alpha=0.2, lw=0)
        axis.set(xlabel="epoch", ylabel=label, yscale="log")
        style.epoch_axis(axis, 1, longest)
        style.plain_log_ticks(axis.yaxis)
        style.clean(axis)
    style.legend_below(figure, axis.get_legend_handles_labels()[0])
    return style.to_png(figure)


_COSTS = {"num_params": "parameters", "train_seconds": "training, seconds"}


def pareto(rows: Rows, title: str, costs: Mapping[str, str] = _COSTS) -> bytes:
    """Test error against each of some costs, by keys of the rows with their labels.

    Rows are as in `results`. A line joins the models that no other beats in both.
    """
    figure = style.new_figure(6 * len(costs), 4.6, title)
    axes = figure.subplots(1, len(costs), sharey=True)
    for axis, (key, label) in zip(axes, costs.items(), strict=True):
        points = []
        for i, row in enumerate(rows):
            errors = _error(row["test_accuracies"])
            look = style.series_style(i, marker=True) | {"linestyle": "none"}
            points.append((row[key], errors.mean()))
            axis.errorbar(
                *points[i], _std(errors), **look, ms=8, capsize=3, label=row["model"]
            )
        front = [p for p in points if not any(_beats(q, p) for q in points)]
        axis.plot(*zip(*sorted(front), strict=True), color="0.6", zorder=0)
        axis.set(xscale="log", yscale="log", xlabel=label)
        axis.margins(x=0.1)
        style.plain_log_ticks(axis.xaxis)
        style.clean(axis)
    style.plain_log_ticks(axes[0].yaxis)
    axes[0].set_ylabel("test error, %")
    style.legend_below(figure, axis.get_legend_handles_labels()[0])
    return style.to_png(figure)


def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    labels: tuple[str, str],
    title: str,
    bands: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    **axis_settings: Any,
) -> bytes:
    """Curves (x, y) by name, with bands (low, high) around those that have one."""
    figure = style.new_figure(7, 4.2, title)
    axis = figure.subplots()
    for i, (name, (x, y)) in enumerate(series.items()):
        look = style.series_style(i, marker=True)
        apart = max(1, len(x) // 20)
        axis.plot(x, y, markersize=5, markevery=apart, label=name, **look)
        if bands and name in bands:
            axis.fill_between(x, *bands[name], color=look["color"], alpha=0.2, lw=0)
    axis.set(xlabel=labels[0], ylabel=labels[1], **axis_settings)
    if all(number == round(number) for x, _ in series.values() for number in x):
        axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    for part in (axis.xaxis, axis.yaxis):
        if part.get_scale() == "log":
            style.plain_log_ticks(part)
    style.clean(axis)
    style.legend_below(figure, axis.lines)
    return style.to_png(figure)


def claims(rows: Rows, title: str) -> bytes:
    """Test error of each recipe beside what its notebook claims.

    Args:
      rows: with 'notebook', the recipe's 'name', 'test_accuracies' and 'at_least', the
        accuracy that is claimed or None.
      title: of the figure.
    """
    figure = style.new_figure(9, 1.2 + 0.34 * len(rows), title)
    axis = figure.subplots()
    notebooks = list(dict.fromkeys(row["notebook"] for row in rows))
    colours = [style.series_style(i)["color"] for i in range(len(notebooks))]
    for i, row in enumerate(rows):
        colour = colours[notebooks.index(row["notebook"])]
        errors = _error(row["test_accuracies"])
        axis.plot(errors, [i] * len(errors), "o", color=colour, markersize=5)
        if row["at_least"]:
            claimed = _error(row["at_least"])
            axis.plot(claimed, i, "|", color="black", markersize=16, mew=2)
    axis.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axis.invert_yaxis()
    axis.set(xscale="log", xlabel="test error, %; a dot for each seed")
    style.plain_log_ticks(axis.xaxis)
    style.clean(axis, "x")
    other = axis.secondary_yaxis("right")
    middles = [
        np.mean([i for i, row in enumerate(rows) if row["notebook"] == notebook])
        for notebook in notebooks
    ]
    other.set_yticks(middles, notebooks)
    other.tick_params(length=0)
    other.spines["right"].set_visible(False)
    for tick, colour in zip(other.get_yticklabels(), colours, strict=True):
        tick.set_color(colour)
    if any(row["at_least"] for row in rows):
        look = {"color": "black", "markersize": 12, "mew": 2}
        style.legend_below(figure, axis.plot([], [], "|", label="claim", **look))
    return style.to_png(figure)


def _error(accuracies: Any) -> Any:
    """In percent; a perfect score is drawn as 0.01 %, for 0 has no logarithm."""
    return 100 * np.maximum(1 - np.asarray(accuracies, float), 1e-4)


def _std(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether `one` is better in one of the two, and in neither worse."""
    return one != other and one[0] <= other[0] and one[1] <= other[1]
