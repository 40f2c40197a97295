"""Tables and figure of the study of growth."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from growth.points import AXES, DEFAULTS, Axis

FLAT = 1.2  # times the least cost per multiplication
_GUIDES = {1: "proportional", 2: "quadratic"}


def curve(
    axis: Axis, model: str, points: Sequence[Mapping[str, Any]], key: str
) -> tuple[list[int], list[float]]:
    """What `key` is of `model` along `axis`: the values, and as many numbers."""
    own = [one for one in points if one["model"] == model]
    return [x[axis.field] for x in own], [x[key] for x in own]


def flat_range(values: Sequence[int], costs: Sequence[float]) -> tuple[int, int]:
    """First and last of the values around the cheapest that cost hardly more."""
    first = last = int(np.argmin(costs))
    most = FLAT * costs[first]
    while first > 0 and costs[first - 1] <= most:
        first -= 1
    while last + 1 < len(costs) and costs[last + 1] <= most:
        last += 1
    return values[first], values[last]


def tables(axis: Axis, points: Sequence[Mapping[str, Any]]) -> str:
    """Time and memory along one axis, as Markdown.

    Args:
      axis: one of `AXES`.
      points: what `measure` says of its points.
    """
    times = table(axis, points, "seconds_per_image", 1e6)
    ranges = []
    for model in _models(points):
        values, seconds = curve(axis, model, points, "seconds_per_image")
        _, work = curve(axis, model, points, "multiplications")
        first, last = flat_range(values, np.divide(seconds, work))
        ranges.append(f"{first}" if first == last else f"{first} to {last}")
    times.append(f"| flat | {' | '.join(ranges)} |")
    return "\n".join(
        [
            f"Microseconds per image of training, by {axis.label}; flat is where one "
            f"multiplication costs at most {FLAT - 1:.0%} more than where it is "
            "cheapest:\n",
            *times,
            f"\nMemory of the run in MiB, by {axis.label}:\n",
            *table(axis, points, "memory_bytes", 1 / 2**20),
            "",
        ]
    )


def table(
    axis: Axis, points: Sequence[Mapping[str, Any]], key: str, scale: float
) -> list[str]:
    """Lines of Markdown: a row per value and a column per model."""
    names = _models(points)
    lines = [
        f"| {axis.label} | {' | '.join(names)} |",
        f"| ---: |{' ---: |' * len(names)}",
    ]
    curves = [curve(axis, model, points, key) for model in names]
    for i, value in enumerate(curves[0][0]):
        cells = [_number(numbers[i] * scale) for _, numbers in curves]
        lines.append(f"| {value} | {' | '.join(cells)} |")
    return lines


def _models(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """The models of the points, in the order of their first."""
    return list(dict.fromkeys(one["model"] for one in points))


def _number(x: float) -> str:
    """With three digits or more, without an exponent."""
    digits = 0 if x >= 100 else 1 if x >= 10 else 2
    return f"{x:,.{digits}f}"


def draw(columns: Mapping[str, Sequence[Mapping[str, Any]]], title: str) -> bytes:
    """Time and memory along each axis as a PNG file.

    Args:
      columns: what `measure` says of the points of each axis, by its name.
      title: of the figure.
    """
    # Not at the top: matplotlib is slow to import.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.6), layout="constrained", facecolor="white")
    panels = figure.subplots(2, len(columns), sharex="col", sharey="row", squeeze=False)
    rows = (
        ("seconds_per_image", 1e6, "microseconds per image"),
        ("memory_bytes", 1 / 2**20, "memory with compilation, MiB"),
    )
    drawn = {}
    for row, (key, scale, label) in zip(panels, rows, strict=True):
        row[0].set_ylabel(label)
        for panel, (name, points) in zip(row, columns.items(), strict=True):
            drawn |= draw_curves(panel, AXES[name], points, key, scale)
    # After all curves, which share their limits.
    for panel, name in zip(panels[0], columns, strict=True):
        panel.set_title(AXES[name].title, fontsize=10)
        for exponent in AXES[name].guides:
            line = draw_guide(panel, exponent)
            drawn[line.get_label()] = line
    handles = [drawn[x] for x in (*DEFAULTS, *_GUIDES.values()) if x in drawn]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), frameon=False
    )
    figure.suptitle(title, fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def draw_curves(
    panel: Any,
    axis: Axis,
    points: Sequence[Mapping[str, Any]],
    key: str,
    scale: float,
) -> dict[str, Any]:
    """Draws `key * scale` along `axis` into matplotlib's Axes; the line by model."""
    from matplotlib.ticker import LogLocator

    colours = ("#000000", "#E69F00", "#009E73", "#56B4E9", "#D55E00", "#0072B2")
    looks = dict(zip(DEFAULTS, zip(colours, "ovs^Dp", strict=True), strict=True))
    lines = {}
    for model in _models(points):
        colour, marker = looks[model]
        values, numbers = curve(axis, model, points, key)
        (lines[model],) = panel.plot(
            values,
            np.array(numbers) * scale,
            color=colour,
            marker=marker,
            markersize=4,
            label=model,
        )
    panel.set(xscale="log", yscale="log")
    panel.set_xticks(values, [f"{x}" for x in values], fontsize=8)
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.minorticks_off()
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    if panel.get_subplotspec().is_last_row():
        panel.set_xlabel(axis.label)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(alpha=0.25)
    return lines


def draw_guide(panel: Any, exponent: int) -> Any:
    """A line from below the lowest curve that grows as the value to `exponent`."""
    curves = panel.get_lines()
    values = np.array(curves[0].get_xdata(), float)
    # Guides of other exponents start at the same place.
    lowest = 0.7 * min(x.get_ydata()[0] for x in curves if x.get_label() in DEFAULTS)
    limits = panel.get_ylim()
    (guide,) = panel.plot(
        values,
        lowest * (values / values[0]) ** exponent,
        color="#888888",
        linestyle={1: "--", 2: ":"}[exponent],
        linewidth=1.2,
        zorder=1,
        label=_GUIDES[exponent],
    )
    panel.set_ylim(limits)
    return guide
