"""The figures, each a function of plain data; matplotlib without pyplot."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure

from mnist_jax.plots.canvas import bars, mosaic, new_figure

# Okabe and Ito's palette, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
GREY = "#9A9A9A"
_COLUMNS = 10
_PAIRS = 3  # of image and bars in one row, at most


def samples(
    images: np.ndarray, labels: np.ndarray, names: Sequence[str], title: str
) -> Figure:
    """A grid of training images: uint8 [N, 28, 28] with their labels int [N]."""
    texts = [names[label] for label in labels]
    return mosaic(images, texts, _COLUMNS, 10, f"Training images: {title}")[0]


def curves(epochs: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Loss and accuracy by epoch, training and validation; lines of metrics.jsonl."""
    figure = new_figure(11, 4.2, title)
    number = [epoch["epoch"] for epoch in epochs]
    marker = "o" if len(epochs) <= 30 else "none"
    for axis, what in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for part, colour in (("train", BLUE), ("validation", ORANGE)):
            values = [epoch[f"{part}_{what}"] for epoch in epochs]
            if None in values:
                continue
            last = f"{values[-1]:.4f}" if what == "loss" else f"{values[-1]:.2%}"
            label = "training" if part == "train" else part
            axis.plot(
                number,
                values,
                marker=marker,
                markersize=3.5,
                color=colour,
                label=f"{label}, last {last}",
            )
        axis.set(xlabel="epoch", ylabel=what)
        if len(epochs) == 1:
            axis.set_xlim(0, 2)
        axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        axis.legend(loc="best", frameon=True)
        if what == "accuracy":
            axis.yaxis.set_major_formatter(ticker.PercentFormatter(1))
        else:
            axis.set_yscale("log")
            plain = ticker.FuncFormatter(lambda value, _: f"{value:g}")
            axis.yaxis.set_major_formatter(plain)
            low, high = axis.get_ylim()
            narrow = high / low < 20  # too few powers of ten to read values from
            axis.yaxis.set_minor_formatter(plain if narrow else ticker.NullFormatter())
    return figure


def confusion_matrix(matrix: np.ndarray, names: Sequence[str], title: str) -> Figure:
    """Counts by true and predicted class, int [K, K], with accuracy per class."""
    right, total = matrix.trace(), matrix.sum()
    figure = new_figure(9, 8.2, f"{title}: {right / total:.2%} of {total:,} right")
    axis = figure.subplots()
    totals = np.maximum(matrix.sum(1, keepdims=True), 1)
    # The diagonal would drown the errors, so the scale is that of the errors.
    share = matrix / totals
    errors = np.where(np.eye(len(matrix), dtype=bool), np.nan, share)
    worst = max(np.nanmax(errors), 1e-9)
    axis.imshow(errors, cmap="Oranges", vmin=0, vmax=worst * 1.6)
    for i, row in enumerate(matrix):
        for j, count in enumerate(row):
            if i == j:
                axis.add_patch(_square(i))
            bold = "bold" if i == j else "normal"
            colour = "white" if i == j else "black" if count else "#C0C0C0"
            axis.text(
                j, i, f"{count:,}", ha="center", va="center", color=colour, weight=bold
            )
    accuracies = [f"{row[i] / max(row.sum(), 1):.1%}" for i, row in enumerate(matrix)]
    ticks = range(len(names))
    long = max(map(len, names)) > 2
    axis.set_xticks(
        ticks, names, rotation=45 if long else 0, ha="right" if long else "center"
    )
    axis.set_yticks(ticks, names)
    axis.set(xlabel="predicted", ylabel="true")
    margin = axis.secondary_yaxis("right")
    margin.set_yticks(ticks, accuracies)
    margin.set_ylabel("right, of each true class")
    for part in (axis, margin):
        part.spines[:].set_visible(False)
        part.tick_params(length=0)
    return figure


def predictions(
    images: np.ndarray,
    labels: np.ndarray | None,
    probabilities: np.ndarray,
    names: Sequence[str],
    title: str,
    captions: Sequence[str] | None = None,
) -> Figure:
    """Images beside the probability of each class.

    Args:
      images: uint8 [N, 28, 28].
      labels: int [N], or None where nobody knows them.
      probabilities: float [N, K].
      names: K class names.
      title: what was trained, on what.
      captions: N names of the images, if they have any.
    """
    known = labels is not None
    texts, colours, wrongs = [], [], []
    for i, row in enumerate(probabilities):
        text = f"predicted {names[row.argmax()]}"
        wrong = known and row.argmax() != labels[i]
        if known:
            text += f"\nactual {names[labels[i]]}" + ("  ✗" if wrong else "  ✓")
        if captions:
            text = f"{_shorten(captions[i])}\n{text}"
        texts.append(text)
        colours.append(VERMILION if wrong else "black")
        wrongs.append(wrong)
    columns = min(_PAIRS, len(images))
    heading = "Predictions on test images" if known else "Predictions"
    side = images.shape[2]
    figure, axis, corners = mosaic(
        images, texts, columns, 4 * columns, f"{heading}: {title}", 1.5 * side, colours
    )
    for i, (left, top) in enumerate(corners):
        shades = [GREY] * len(names)
        shades[probabilities[i].argmax()] = VERMILION if wrongs[i] else BLUE
        if wrongs[i]:
            shades[labels[i]] = GREEN
        box = left + 1.05 * side, top, 1.4 * side, images.shape[1]
        bars(axis, box, probabilities[i], names, shades)
    return figure


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
        figure = new_figure(6, 2, f"Mistakes: {title}")
        figure.text(0.5, 0.4, "No test image was classified wrongly.", ha="center")
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
    figure.supxlabel("true → predicted, with the probability given to it", fontsize=10)
    return figure


def comparison(rows: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Test error and training time of several models, as bars side by side."""
    figure = new_figure(10, 0.45 * len(rows) + 1.5, title)
    left, right = figure.subplots(1, 2, sharey=True)
    models = [row["model"] for row in rows]
    place = np.arange(len(rows))
    errors = [100 * (1 - row["test_accuracy"]) for row in rows]
    spreads = [100 * row["spread"] for row in rows]
    left.barh(place, errors, xerr=spreads, color=BLUE, ecolor="black", capsize=3)
    for i, (row, error, spread) in enumerate(zip(rows, errors, spreads, strict=True)):
        accuracy = f" {row['test_accuracy']:.2%} right"
        left.text(error + spread, i, accuracy, va="center", fontsize=10)
    left.set(xlabel="test error, %", xlim=(0, 1.4 * max(errors)))
    seconds = [row["train_seconds"] for row in rows]
    right.barh(place, seconds, color=ORANGE)
    for i, value in enumerate(seconds):
        right.text(value, i, f" {value:.0f} s", va="center", fontsize=10)
    right.set(xlabel="training time, seconds", xlim=(0, 1.2 * max(seconds)))
    left.set_yticks(place, models)
    left.invert_yaxis()
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def _square(place: int):
    from matplotlib.patches import Rectangle

    return Rectangle((place - 0.5, place - 0.5), 1, 1, color=BLUE)


def _shorten(text: str, length: int = 18) -> str:
    return text if len(text) <= length else f"…{text[1 - length :]}"
