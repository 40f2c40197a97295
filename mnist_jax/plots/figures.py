"""The figures of a run, each a function of plain data."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mnist_jax.formats import format_loss
from mnist_jax.plots import style
from mnist_jax.plots.canvas import bars, mosaic, shorten

_COLUMNS = 10
_PAIRS = 3  # of image and bars in one row, at most
_MOST_BARS = 10  # more would be too thin to read
_PARTS = {"train": ("training", style.BLUE), "validation": ("validation", style.ORANGE)}


def samples(
    images: np.ndarray, labels: np.ndarray, names: Sequence[str], title: str
) -> Figure:
    """A grid of training images: uint8 [N, H, W] with their labels int [N]."""
    texts = [names[label] for label in labels]
    return mosaic(images, texts, _COLUMNS, 10, f"Training images: {title}")[0]


def curves(epochs: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Each metric by epoch, training and validation: loss, accuracy and all others.

    Args:
      epochs: lines of metrics.jsonl: "epoch" and "train_<metric>" and
        "validation_<metric>". What is missing or None in a line is no point.
      title: of the figure.
    """
    found = dict.fromkeys(["loss", "accuracy"])  # a set in order
    for key in (key for epoch in epochs for key, x in epoch.items() if x is not None):
        part, _, metric = key.partition("_")
        if part in _PARTS:
            found[metric] = None
    figure, axes = style.panels(len(found), 5.5, 3.7, title, columns=2)
    for axis, metric in zip(axes, found, strict=True):
        for part in _PARTS:
            _draw_metric(axis, epochs, part, metric)
        axis.set(xlabel="epoch", ylabel=metric.replace("_", " "))
        style.epoch_axis(axis, epochs[0]["epoch"], epochs[-1]["epoch"])
        style.clean(axis)
        if axis.lines:
            # Above the panel: inside it would hide points of some runs.
            look = {"ncols": 2, "columnspacing": 1, "handlelength": 1.5}
            axis.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, **look)
        if metric == "accuracy":
            axis.yaxis.set_major_formatter(ticker.PercentFormatter(1))
        elif metric == "loss":
            axis.set_yscale("log")
            style.plain_log_ticks(axis.yaxis)
    return figure


def _draw_metric(
    axis: Any, epochs: Sequence[Mapping[str, Any]], part: str, metric: str
) -> None:
    points = [(epoch["epoch"], epoch.get(f"{part}_{metric}")) for epoch in epochs]
    points = [(number, value) for number, value in points if value is not None]
    if not points:
        return
    label, colour = _PARTS[part]
    form = "{:.2%}".format if metric == "accuracy" else format_loss
    last = form(points[-1][1])
    axis.plot(
        *zip(*points, strict=True),
        marker="o" if len(epochs) <= 30 else "none",
        markersize=3.5,
        color=colour,
        label=f"{label}, last {last}",
    )


def confusion_matrix(matrix: np.ndarray, names: Sequence[str], title: str) -> Figure:
    """Counts by true and predicted class, int [K, K], with accuracy per class."""
    correct, total = matrix.trace(), matrix.sum()
    accuracy = correct / max(total, 1)
    side = max(8.2, 1.2 + 0.42 * len(matrix))
    heading = f"{title}: {accuracy:.2%} of {total:,} correct"
    figure = style.new_figure(side + 0.8, side, heading)
    axis = figure.subplots()
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    # The diagonal would drown the errors, so the scale is that of the errors.
    errors = np.where(np.eye(len(matrix), dtype=bool), np.nan, share)
    worst = max(np.nanmax(errors), 1e-9)
    axis.imshow(errors, cmap="Oranges", vmin=0, vmax=worst * 1.6)
    size = 10 if len(matrix) <= 12 else 7.5
    for (i, j), count in np.ndenumerate(matrix):
        if i == j:
            axis.add_patch(Rectangle((i - 0.5, i - 0.5), 1, 1, fc=style.BLUE))
        elif not count:
            continue
        colour, weight = ("white", "bold") if i == j else ("black", "normal")
        place = {"ha": "center", "va": "center", "in_layout": False}
        axis.text(
            j, i, f"{count:,}", color=colour, weight=weight, fontsize=size, **place
        )
    ticks = range(len(names))
    if max(map(len, names)) > 2:
        axis.set_xticks(ticks, names, rotation=45, ha="right", rotation_mode="anchor")
    else:
        axis.set_xticks(ticks, names)
    axis.set_yticks(ticks, names)
    axis.set(xlabel="predicted", ylabel="true")
    margin = axis.secondary_yaxis("right")
    margin.set_yticks(ticks, [f"{x:.1%}" for x in share.diagonal()])
    margin.set_ylabel("accuracy on each true class")
    for part in (axis, margin):
        part.spines[:].set_visible(False)
        part.tick_params(length=0)
    # Thin lines between the cells: the eye finds row and column of an error.
    edges = np.arange(len(matrix) + 1) - 0.5
    axis.hlines(edges, edges[0], edges[-1], color="0.9", linewidth=0.6)
    axis.vlines(edges, edges[0], edges[-1], color="0.9", linewidth=0.6)
    return figure


def predictions(
    images: np.ndarray,
    labels: np.ndarray | None,
    probabilities: np.ndarray,
    names: Sequence[str],
    title: str,
    captions: Sequence[str] | None = None,
) -> Figure:
    """Images beside the probabilities of the classes, the 10 most probable at most.

    Args:
      images: uint8 [N, H, W].
      labels: int [N], or None where they are not known.
      probabilities: float [N, K].
      names: K class names.
      title: what was trained, on what.
      captions: N names of the images, if they have any.
    """
    known = labels is not None
    predicted = probabilities.argmax(-1)
    wrong = predicted != labels if known else np.zeros(len(images), bool)
    texts = [f"predicted {names[label]}" for label in predicted]
    if known:
        texts = [
            f"{text}\nactual {names[label]}  {'✗' if is_wrong else '✓'}"
            for text, label, is_wrong in zip(texts, labels, wrong, strict=True)
        ]
    if captions:
        texts = [
            f"{shorten(caption, 18)}\n{text}"
            for caption, text in zip(captions, texts, strict=True)
        ]
    columns = min(_PAIRS, len(images))
    heading = "Predictions on test images" if known else "Predictions"
    height, side = images.shape[1:]
    figure, axis, corners = mosaic(
        images,
        texts,
        columns,
        4 * columns,
        f"{heading}: {title}",
        1.5 * side,
        [style.VERMILION if is_wrong else "black" for is_wrong in wrong],
    )
    for i, (left, top) in enumerate(corners):
        colours = np.full(len(names), style.GREY)
        colours[predicted[i]] = style.VERMILION if wrong[i] else style.BLUE
        if wrong[i]:
            colours[labels[i]] = style.BLUISH_GREEN
        shown = _most_probable(probabilities[i], labels[i] if known else None)
        box = left + 1.05 * side, top, 1.4 * side, height
        short = [shorten(names[k], 14) for k in shown]
        bars(axis, box, probabilities[i, shown], short, colours[shown])
    if len(names) > _MOST_BARS:
        note = f"the {_MOST_BARS} most probable of {len(names)} classes"
        figure.supxlabel(note, fontsize=10)
    return figure


def _most_probable(probabilities: np.ndarray, label: int | None) -> np.ndarray:
    """The classes to draw, in their own order: int [`_MOST_BARS`] or fewer.

    The true class is always among them.
    """
    order = np.argsort(-probabilities, kind="stable")[:_MOST_BARS]
    if label is not None and label not in order:
        order[-1] = label
    return np.sort(order)


def mistakes(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    num_mistakes: int,
    names: Sequence[str],
    title: str,
) -> Figure:
    """The most confident mistakes, sorted; arrays as in `predictions`."""
    if not len(images):
        figure = style.new_figure(6, 2, f"Mistakes: {title}")
        figure.text(0.5, 0.4, "Every test image was classified correctly.", ha="center")
        return figure
    which = f"The {len(images)} most confident of {num_mistakes:,}"
    if len(images) == num_mistakes:
        which = f"All {num_mistakes}"
    heading = f"{which} mistakes, the most confident first: {title}"
    texts = []
    for label, row in zip(labels, probabilities, strict=True):
        predicted = names[row.argmax()]
        # Long class names need a line each.
        gap = "\n" if len(names[label] + predicted) > 6 else " "
        texts.append(f"{names[label]} →{gap}{predicted}{gap}({row.max():.0%})")
    figure, _, _ = mosaic(images, texts, 8, 11.5, heading)
    figure.supxlabel("true → predicted (its probability)", fontsize=10)
    return figure


def with_maps(
    images: np.ndarray,
    maps: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    names: Sequence[str],
    title: str,
    note: str,
) -> Figure:
    """Each image beside a map of it.

    Args:
      images, labels, probabilities, names, title: as in `predictions`.
      maps: float [N, H, V], 0-1.
      note: what the maps show.
    """
    gap = np.full((len(images), images.shape[1], 2), 255, np.uint8)
    pairs = np.concatenate([images, gap, np.uint8(np.rint(255 * maps))], axis=2)
    predicted = probabilities.argmax(-1)
    texts = [
        f"{names[label]} as {names[guess]} ({row.max():.0%})"
        for label, guess, row in zip(labels, predicted, probabilities, strict=True)
    ]
    wrong = predicted != labels
    colours = [style.VERMILION if is_wrong else "black" for is_wrong in wrong]
    figure, _, _ = mosaic(pairs, texts, 4, 11.5, title, colours=colours)
    figure.supxlabel(note, fontsize=10)
    return figure
