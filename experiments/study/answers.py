"""Figures of what models say of the test images: plain data -> PNG files."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mnist_jax.metrics import Reliability
from mnist_jax.plots.canvas import mosaic, new_figure, to_png

_BLUE = "#0072B2"


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
    figure, axes = _panels(len(matrices), 3.7, 3.8, title)
    wrong = {name: m - np.diag(m.diagonal()) for name, m in matrices.items()}
    highest = max(1, *(m.max() for m in wrong.values()))
    for axis, (name, matrix) in zip(axes, wrong.items(), strict=True):
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
    figure.supxlabel("predicted", fontsize=11)
    figure.supylabel("actual", fontsize=11)
    return to_png(figure)


def reliability(models: Mapping[str, Reliability], title: str) -> bytes:
    """Accuracy against confidence; the size of a point is its number of images."""
    figure, axes = _panels(len(models), 3.2, 3.3, title, sharex=True, sharey=True)
    for axis, (name, bins) in zip(axes, models.items(), strict=True):
        axis.plot([0, 1], [0, 1], color="0.7", zorder=0)
        axis.plot(bins.confidence, bins.accuracy, color=_BLUE, lw=1)
        sizes = 8 + 120 * bins.count / bins.count.sum()
        axis.scatter(bins.confidence, bins.accuracy, sizes, color=_BLUE)
        axis.set_title(f"{name}: ECE {bins.error:.2%}", fontsize=11)
        axis.grid(alpha=0.3)
        axis.set_aspect("equal")
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


def _panels(
    number: int, width: float, height: float, title: str, **settings: Any
) -> tuple[Figure, np.ndarray]:
    """A figure with so many Axes, of so many inches each, up to four in a row."""
    columns = min(4, number)
    lines = -(-number // columns)
    figure = new_figure(width * columns, height * lines + 0.5, title)
    axes = figure.subplots(lines, columns, squeeze=False, **settings).ravel()
    for axis in axes[number:]:
        axis.set_visible(False)
    return figure, axes[:number]
