"""The figures, each a function of plain data; matplotlib without pyplot."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps, ticker
from matplotlib.figure import Figure

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
    return _mosaic(images, texts, _COLUMNS, 10, f"Training images: {title}")


def curves(epochs: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Loss and accuracy by epoch, training and validation; lines of metrics.jsonl."""
    figure = _figure(11, 4.2, title)
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
    figure = _figure(9, 8.2, f"{title}: {right / total:.2%} of {total:,} right")
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
    columns = min(_PAIRS, len(images))
    num_rows = -(-len(images) // columns)
    heading = "Predictions" if labels is None else "Predictions on test images"
    figure = _figure(4 * columns, 2.2 * num_rows + 0.6, f"{heading}: {title}")
    widths = [1, 1.35] * columns
    axes = figure.subplots(num_rows, 2 * columns, squeeze=False, width_ratios=widths)
    pairs = axes.reshape(-1, 2)
    for i, (left, right) in enumerate(pairs[: len(images)]):
        predicted = probabilities[i].argmax()
        known = labels is not None
        wrong = known and predicted != labels[i]
        _show(left, images[i])
        text = f"predicted {names[predicted]}"
        if known:
            text += f"\nactual {names[labels[i]]}" + ("  ✗" if wrong else "  ✓")
        if captions:
            text = f"{_shorten(captions[i])}\n{text}"
        left.set_title(text, fontsize=9.5, color=VERMILION if wrong else "black")
        colours = [GREY] * len(names)
        colours[predicted] = VERMILION if wrong else BLUE
        if wrong:
            colours[labels[i]] = GREEN
        _bars(right, probabilities[i], names, colours)
    _hide(pairs[len(images) :].ravel())
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
        figure = _figure(6, 2, f"Mistakes: {title}")
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
    figure = _mosaic(images, texts, 8, 11.5, heading)
    figure.supxlabel("true → predicted, with the probability given to it", fontsize=10)
    return figure


def comparison(rows: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Test error and training time of several models, as bars side by side."""
    figure = _figure(10, 0.45 * len(rows) + 1.5, title)
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


def _figure(width: float, height: float, title: str) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=13)
    return figure


def _mosaic(
    images: np.ndarray, texts: Sequence[str], columns: int, width: float, title: str
) -> Figure:
    """Images with a text above each, as one picture.

    An axes for each image would take matplotlib several times as long.

    Args:
      images: uint8 [N, H, W].
      texts: N.
      columns: images in a row.
      width: of the figure, inches.
      title: of the figure.
    """
    num_lines = max(text.count("\n") for text in texts) + 1
    height, side = images.shape[1:]
    across = round(1.3 * side)  # pixels from one image to the next
    inches = width / (columns * across)  # of a pixel
    above = round((0.17 * num_lines + 0.08) / inches)  # pixels for the text
    down = height + above
    num_rows = -(-len(images) // columns)
    canvas = np.full((num_rows * down, columns * across), np.nan)
    figure = _figure(width, len(canvas) * inches + 0.6, title)
    axis = figure.subplots()
    for i, (image, text) in enumerate(zip(images, texts, strict=True)):
        top, left = i // columns * down + above, i % columns * across
        left += (across - side) // 2
        canvas[top : top + height, left : left + side] = image
        axis.text(
            left + side / 2, top - 2, text, ha="center", va="bottom", fontsize=9.5
        )
    grey = colormaps["gray"].with_extremes(bad="white")
    axis.imshow(canvas, cmap=grey, vmin=0, vmax=255, interpolation="nearest")
    axis.set_axis_off()
    return figure


def _show(axis, image: np.ndarray) -> None:
    axis.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])


def _bars(axis, probabilities, names, colours) -> None:
    place = np.arange(len(names))
    axis.barh(place, probabilities, color=colours)
    axis.set_yticks(place, names, fontsize=7)
    axis.set(xlim=(0, 1.22), xticks=[], ylim=(len(names) - 0.4, -0.6))
    axis.tick_params(length=0)
    axis.spines[["top", "right", "bottom"]].set_visible(False)
    for i, share in enumerate(probabilities):
        if share >= 0.01:
            axis.text(share + 0.02, i, f"{share:.0%}", va="center", fontsize=7)


def _square(place: int):
    from matplotlib.patches import Rectangle

    return Rectangle((place - 0.5, place - 0.5), 1, 1, color=BLUE)


def _hide(axes) -> None:
    for axis in axes:
        axis.set_axis_off()


def _shorten(text: str, length: int = 18) -> str:
    return text if len(text) <= length else f"…{text[1 - length :]}"
