"""Images with captions, and bars of probabilities beside them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from mnist_jax.plots.style import GREY, new_figure


def mosaic(
    images: np.ndarray,
    texts: Sequence[str],
    columns: int,
    width: float,
    title: str,
    beside: float = 0,
    colours: Sequence[str] | None = None,
) -> tuple[Figure, Any, list[tuple[float, float]]]:
    """Images with a text above each, as one picture.

    One Axes for each image would be several times as slow. The texts lie within the
    picture: the layout need not ask for their extents, as slow as drawing them.

    Args:
      images: uint8 [N, H, W].
      texts: N.
      columns: images in a row.
      width: of the figure, inches.
      title: of the figure.
      beside: pixels to keep free on the right of each image.
      colours: N, of the texts.

    Returns:
      (figure, its Axes, whose unit is a pixel, left and top of each image).
    """
    num_lines = max(text.count("\n") for text in texts) + 1
    height, side = images.shape[1:]
    across = round(1.3 * side + beside)  # pixels from one image to the next
    inches = width / (columns * across)  # of a pixel
    above = round((0.17 * num_lines + 0.15) / inches)  # pixels for the text
    num_rows = -(-len(images) // columns)
    canvas = np.full((num_rows * (height + above), columns * across), np.nan)
    figure = new_figure(width, len(canvas) * inches + 0.6, title)
    axis = figure.subplots()
    corners = []
    for i, (image, text) in enumerate(zip(images, texts, strict=True)):
        row, column = divmod(i, columns)
        left = column * across + round(0.15 * side)
        top = row * (height + above) + above
        canvas[top : top + height, left : left + side] = image
        left, top = left - 0.5, top - 0.5  # matplotlib counts from a pixel's centre
        axis.text(
            left + side / 2,
            top - 0.06 / inches,
            text,
            ha="center",
            va="bottom",
            fontsize=9.5,
            color=colours[i] if colours else "black",
            in_layout=False,
        )
        corners.append((left, top))
    grey = colormaps["gray"].with_extremes(bad="white")
    axis.imshow(canvas, cmap=grey, vmin=0, vmax=255, interpolation="nearest")
    axis.set_axis_off()
    axis.autoscale(False)  # what is added stays inside
    return figure, axis, corners


def bars(
    axis: Any,
    box: tuple[float, float, float, float],
    probabilities: np.ndarray,
    names: Sequence[str],
    colours: Sequence[str],
) -> None:
    """Draws the probability of each class as a bar with name and percentage.

    Args:
      axis: matplotlib's Axes.
      box: left, top, width and height of the place, in units of `axis`.
      probabilities: float [K].
      names: K class names.
      colours: K.
    """
    left, top, width, height = box
    pitch = height / len(names)
    start = left + width * (0.06 + 0.028 * max(map(len, names)))  # after the names
    scale = left + 0.86 * width - start  # before the percentages
    place = top + pitch * (np.arange(len(names)) + 0.5)
    axis.barh(place, scale * probabilities, 0.8 * pitch, start, color=colours)
    axis.plot([start, start], [top, top + height], color="black", linewidth=0.8)
    for i, (y, probability) in enumerate(zip(place, probabilities, strict=True)):
        # The name in colour too: a bar of nearly 0 does not show its own.
        axis.text(
            start - 0.01 * width,
            y,
            names[i],
            ha="right",
            va="center",
            fontsize=7,
            color="black" if colours[i] == GREY else colours[i],
            in_layout=False,
        )
        if probability >= 0.01:
            end = start + scale * probability + 0.01 * width
            share = f"{probability:.0%}"
            axis.text(end, y, share, va="center", fontsize=7, in_layout=False)


def shorten(text: str, length: int) -> str:
    """The text's end, if it has more than `length` letters: names differ there."""
    return text if len(text) <= length else f"…{text[1 - length :]}"
