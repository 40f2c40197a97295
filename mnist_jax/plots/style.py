"""The palette and the style of every figure; matplotlib without pyplot."""

import io
import re
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from absl import logging
from matplotlib import ticker
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

# Okabe and Ito, "Color Universal Design" (2008): colour-blind readers can tell them
# apart.
BLACK = "#000000"
ORANGE = "#E69F00"
SKY_BLUE = "#56B4E9"
BLUISH_GREEN = "#009E73"
BLUE = "#0072B2"
VERMILION = "#D55E00"
REDDISH_PURPLE = "#CC79A7"
GREY = "#999999"

# Without yellow, which is too light for a line on white.
COLOURS = (BLUE, VERMILION, BLUISH_GREEN, ORANGE, REDDISH_PURPLE, SKY_BLUE, BLACK)
DASHES = ("-", "--", ":", "-.")
MARKERS = "osD^vP*X"

_DPI = 150
_COMPRESSION = 3  # half the time of zlib's 6, and a sixth more bytes
# What matplotlib warns of, for each letter: its number and the font.
_NO_GLYPH = r"Glyph (\d+) .*missing from font\(s\) (.*)\."


def new_figure(width: float, height: float, title: str) -> Figure:
    """An empty figure; width and height in inches."""
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    figure.suptitle(title, fontsize=13)
    return figure


def panels(
    number: int, width: float, height: float, title: str, columns: int = 4, **kwargs
) -> tuple[Figure, np.ndarray]:
    """A figure of `number` panels, each `width` x `height` inches.

    Args:
      number: of panels, 1 or more.
      width: of a panel.
      height: of a panel.
      title: of the figure.
      columns: panels in a row, at most.
      **kwargs: for `Figure.subplots`, as sharex and sharey.

    Returns:
      (figure, its Axes: object [number]).
    """
    columns = min(columns, number)
    rows = -(-number // columns)
    figure = new_figure(width * columns, height * rows + 0.5, title)
    axes = figure.subplots(rows, columns, squeeze=False, **kwargs).ravel()
    for axis in axes[number:]:
        axis.remove()
    return figure, axes[:number]


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG file; equal figures give equal bytes.

    No text is parsed as math: a `$` in the name of a file or class is a `$`. Letters
    that the font lacks become boxes, which one warning tells.
    """
    buffer = io.BytesIO()
    with (
        matplotlib.rc_context({"text.parse_math": False}),  # of ticks made on drawing
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.filterwarnings("always", message=_NO_GLYPH)
        for text in figure.findobj(Text):
            text.set_parse_math(False)
        # Figure.savefig would draw it twice.
        FigureCanvasAgg(figure).print_png(
            buffer,
            metadata={"Software": None},
            pil_kwargs={"compress_level": _COMPRESSION},
        )
    _tell_boxes(figure, caught)
    return buffer.getvalue()


def _tell_boxes(figure: Figure, caught: Sequence[warnings.WarningMessage]) -> None:
    """Warns once of all letters that the font lacks; shows other warnings as usual."""
    missing = {}  # a set in order
    for one in caught:
        if found := re.match(_NO_GLYPH, str(one.message)):
            missing[chr(int(found[1]))] = found[2]
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    if missing:
        logging.warning(
            "the figure %r shows boxes: its font, %s, lacks the letters %r; rename the "
            "file or class to see its name there",
            figure.get_suptitle(), next(iter(missing.values())), "".join(missing),
        )  # fmt: skip


def series_style(number: int, marker: bool = False) -> dict[str, str]:
    """Keyword arguments of `Axes.plot` for series `number`, 0 or more.

    The colours are used up before the dashes change; markers change with each series.
    """
    style = {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": DASHES[number // len(COLOURS) % len(DASHES)],
    }
    return style | ({"marker": MARKERS[number % len(MARKERS)]} if marker else {})


def clean(axis: Any, grid: str = "both") -> None:
    """Removes the frame's top and right and draws a faint grid, 'x', 'y' or 'both'."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.3, axis=grid)
    axis.set_axisbelow(True)


def epoch_axis(axis: Any, first: int, last: int) -> None:
    """Sets the x-axis to the epochs `first` to `last`, which may be the same."""
    margin = 0.05 * (last - first) or 1
    axis.set_xlim(first - margin, last + margin)
    axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))


def legend_below(figure: Figure, handles: Sequence[Any]) -> None:
    """One legend under all panels, in as few rows as the figure's width allows."""
    widths = [0.7 + 0.09 * len(x.get_label()) for x in handles]  # about, inches
    for rows in range(1, len(handles) + 1):
        columns = [widths[i : i + rows] for i in range(0, len(widths), rows)]
        if sum(map(max, columns)) < figure.get_figwidth():
            break
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(columns), frameon=False
    )


def plain_log_ticks(axis: Any) -> None:
    """Enough ticks without exponents on a logarithmic axis.

    Args:
      axis: matplotlib's XAxis or YAxis; its limits must have been set.
    """
    name, (low, high) = axis.axis_name, sorted(axis.get_data_interval())
    if not getattr(axis.axes, f"get_autoscale{name}_on")() or not 0 < low < np.inf:
        low, high = sorted(axis.get_view_interval())
    if high / low < 1.001:  # one value, apart by rounding errors
        # Without autoscaling, which would first warn that it has nothing to scale.
        limits = {f"autoscale{name}_on": False, f"{name}lim": (low / 1.3, high * 1.3)}
        axis.axes.set(**limits)
    low, high = sorted(axis.get_view_interval())
    if high / low < 4:  # 1, 2 and 5 would be too few ticks
        axis.set_major_locator(ticker.MaxNLocator(5, steps=(1, 2, 2.5, 5, 10)))
    else:
        many, few = (1, 2, 3, 5, 7), (1, 2, 5)
        subs = many if high / low < 30 else few if high / low < 100 else (1,)
        axis.set_major_locator(ticker.LogLocator(subs=subs))
    axis.set_major_formatter(ticker.FuncFormatter(plain_number))
    axis.set_minor_formatter(ticker.NullFormatter())


def plain_number(value: float, _: Any = None) -> str:
    """'12,000', '1.5' or '0.02': without an exponent from a ten thousandth to 10^9."""
    return f"{value:,.0f}" if 1000 <= value < 1e9 else f"{value:g}"
