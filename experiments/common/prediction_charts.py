"""Charts of predictions on the test images: plain data -> PNG files."""

from collections.abc import Mapping, Sequence

import numpy as np

from mnist_jax.evaluation import Reliability
from mnist_jax.plots import style
from mnist_jax.plots.canvas import mosaic


def per_class(
    accuracies: Mapping[str, Sequence[float]], names: Sequence[str], title: str
) -> bytes:
    """Accuracy on each class, K of them, by model, as a heat map."""
    values = 100 * np.array(list(accuracies.values()))
    wide = max(0.55, 0.1 * max(map(len, names)))  # inches of a column
    figure = style.new_figure(1.5 + wide * len(names), 1.5 + 0.42 * len(values), title)
    axis = figure.subplots()
    axis.imshow(values, cmap="YlGnBu", vmin=values.min(), vmax=100, aspect="auto")
    middle = (values.min() + 100) / 2
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if value > middle else "black"
        axis.text(
            column, row, f"{value:.1f}", ha="center", va="center", color=colour,
            fontsize=9,
        )  # fmt: skip
    axis.set_yticks(range(len(values)), list(accuracies))
    axis.set_xticks(range(len(names)), names)
    axis.tick_params(length=0)
    axis.set_xlabel("accuracy on the test images of each class, %")
    return style.to_png(figure)


def confusions(
    matrices: Mapping[str, np.ndarray], names: Sequence[str], title: str
) -> bytes:
    """Confusion matrices side by side, int [K, K], rows are the true classes.

    The mistakes alone are drawn; the diagonal is left white.
    """
    side = max(3.7, 0.9 + 0.24 * len(names))  # inches
    columns = 4 if side < 4 else 2
    figure, axes = style.panels(len(matrices), side, side + 0.1, title, columns)
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
        for ticks, turned in ((axis.set_xticks, 90), (axis.set_yticks, 0)):
            long = max(map(len, names)) > 3
            ticks(range(len(names)), names, rotation=turned if long else 0, fontsize=8)
    figure.supxlabel("predicted", fontsize=11)
    figure.supylabel("true", fontsize=11)
    return style.to_png(figure)


def reliability(models: Mapping[str, Reliability], title: str) -> bytes:
    """Accuracy against confidence; the size of a dot is its number of images."""
    figure, axes = style.panels(len(models), 3.2, 3.3, title, sharex=True, sharey=True)
    for axis, (name, bins) in zip(axes, models.items(), strict=True):
        axis.plot([0, 1], [0, 1], color="0.7", zorder=0)
        axis.plot(bins.confidence, bins.accuracy, color=style.BLUE, linewidth=1)
        sizes = 8 + 120 * bins.count / bins.count.sum()
        axis.scatter(bins.confidence, bins.accuracy, sizes, color=style.BLUE)
        axis.set_title(f"{name}: ECE {bins.error:.2%}", fontsize=11)
        axis.set_aspect("equal")
        style.clean(axis)
    figure.supxlabel("confidence: probability of the predicted class", fontsize=11)
    figure.supylabel("accuracy of these predictions", fontsize=11)
    return style.to_png(figure)


def wrong_images(
    images: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray,
    names: Sequence[str],
    title: str,
) -> bytes:
    """Images that all models classify wrongly.

    Args:
      images: uint8 [N, H, W].
      labels: int [N].
      predictions: int [M, N], classes, of M models.
      names: K class names.
      title: of the figure.
    """
    if not len(images):
        figure = style.new_figure(6, 1.5, title)
        figure.text(0.5, 0.3, "No image is wrong in all of them.", ha="center")
        return style.to_png(figure)
    texts = []
    for label, predicted in zip(labels, predictions.T, strict=True):
        classes, counts = np.unique(predicted, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        found = [names[k] for k in classes[order]]
        long = max(map(len, found)) > 3
        gap = "\n" if long else " "
        texts.append(f"{names[label]} →{gap}{_join(found, long)}")
    figure, _, _ = mosaic(images, texts, 10, 12, title)
    figure.supxlabel("true → predicted, the most frequent first", fontsize=10)
    return style.to_png(figure)


def _join(found: Sequence[str], long: bool) -> str:
    """Long names get a line each, three at most."""
    if not long:
        return "/".join(found)
    more = [f"and {len(found) - 2} more"] if len(found) > 3 else found[2:3]
    return "\n".join([*found[:2], *more])
