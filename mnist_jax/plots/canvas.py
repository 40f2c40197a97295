"""What figures are made of; matplotlib without pyplot."""

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

_DPI = 150


def new_figure(width: float, height: float, title: str) -> Figure:
    """An empty figure of so many inches."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=13)
    return figure


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG file, the same bytes each time."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A file's name may have letters that the font lacks; a box stands for them.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()


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

    An axes for each image would take matplotlib several times as long.

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
    above = round((0.17 * num_lines + 0.08) / inches)  # pixels for the text
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
    """Draws the probability of each class as a bar with name and share.

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
    scale = left + 0.86 * width - start  # before the shares
    place = top + pitch * (np.arange(len(names)) + 0.5)
    axis.barh(place, scale * probabilities, 0.8 * pitch, start, color=colours)
    axis.plot([start, start], [top, top + height], color="black", linewidth=0.8)
    for y, name, share in zip(place, names, probabilities, strict=True):
        axis.text(start - 0.01 * width, y, name, ha="right", va="center", fontsize=7)
        if share >= 0.01:
            end = start + scale * share + 0.01 * width
            axis.text(end, y, f"{share:.0%}", va="center", fontsize=7)
