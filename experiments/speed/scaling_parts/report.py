"""Tables and figure of the scaling study."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.common.table import Column, Table
from experiments.speed.scaling_parts.points import AXES, DEFAULTS, Axis

FLAT = 1.2  # times the least time per MAC
_GUIDES = {1: "proportional", 2: "quadratic"}

Points = Sequence[Mapping[str, Any]]  # what `measure` returned


def curve(
    axis: Axis, model: str, points: Points, key: str
) -> tuple[list[int], list[float]]:
    """`key` of `model` along `axis`: the values of the axis, and as many numbers."""
    own = [one for one in points if one["model"] == model]
    return [x[axis.field] for x in own], [x[key] for x in own]


def flat_range(values: Sequence[int], times: Sequence[float]) -> tuple[int, int]:
    """First and last of the values around the least time at up to `FLAT` times it."""
    first = last = int(np.argmin(times))
    most = FLAT * times[first]
    while first > 0 and times[first - 1] <= most:
        first -= 1
    while last + 1 < len(times) and times[last + 1] <= most:
        last += 1
    return values[first], values[last]


def to_markdown(axis: Axis, points: Points) -> str:
    """Time and memory along one axis."""
    times = make_table(axis, points, "seconds_per_image", 1e6)
    flat = {axis.label: "flat"}
    for model in _models(points):
        values, seconds = curve(axis, model, points, "seconds_per_image")
        _, macs = curve(axis, model, points, "macs")
        first, last = flat_range(values, np.divide(seconds, macs))
        flat[model] = f"{first}" if first == last else f"{first} to {last}"
    return "\n".join(
        [
            f"Training time per image in microseconds, by {axis.label}; flat: time per "
            f"MAC at most {FLAT - 1:.0%} above its least:\n",
            times._replace(rows=[*times.rows, flat]).to_markdown(),
            f"Memory in MiB, by {axis.label}:\n",
            make_table(axis, points, "memory_bytes", 1 / 2**20).to_markdown(),
        ]
    )


def make_table(axis: Axis, points: Points, key: str, scale: float) -> Table:
    """A row of texts for each value of the axis, a column for each model."""
    curves = {model: curve(axis, model, points, key) for model in _models(points)}
    values = next(iter(curves.values()))[0]
    rows = [
        {axis.label: f"{value}"}
        | {model: _number(numbers[i] * scale) for model, (_, numbers) in curves.items()}
        for i, value in enumerate(values)
    ]
    columns = [Column(x, lambda row, x=x: row[x]) for x in (axis.label, *curves)]
    return Table(columns, rows)


def _models(points: Points) -> list[str]:
    """The models of the points, in the order of their first."""
    return list(dict.fromkeys(one["model"] for one in points))


def _number(x: float) -> str:
    """With three digits or more, without an exponent."""
    digits = 0 if x >= 100 else 1 if x >= 10 else 2
    return f"{x:,.{digits}f}"


def draw(columns: Mapping[str, Points], title: str) -> bytes:
    """Time and memory along each axis as a PNG file.

    Args:
      columns: the points of each axis, by its name.
      title: of the figure.
    """
    from mnist_jax.plots import style  # matplotlib is slow to import

    figure, panels = style.panels(
        2 * len(columns), 3.4, 3, title, len(columns), sharex="col", sharey="row"
    )
    rows = (
        ("seconds_per_image", 1e6, "time per image, microseconds"),
        ("memory_bytes", 1 / 2**20, "memory with compilation, MiB"),
    )
    drawn = {}
    for row, (key, scale, label) in zip(panels.reshape(2, -1), rows, strict=True):
        row[0].set_ylabel(label)
        for panel, (name, points) in zip(row, columns.items(), strict=True):
            drawn |= draw_curves(panel, AXES[name], points, key, scale)
        style.plain_log_ticks(row[0].yaxis)  # which the row shares
    for panel, name in zip(panels, columns, strict=False):
        panel.set_title(AXES[name].title, fontsize=10)
        for exponent in AXES[name].guides:
            line = draw_guide(panel, exponent)
            drawn[line.get_label()] = line
    for panel, name in zip(panels[len(columns) :], columns, strict=True):
        panel.set_xlabel(AXES[name].label)
    handles = [drawn[x] for x in (*DEFAULTS, *_GUIDES.values()) if x in drawn]
    style.legend_below(figure, handles)
    return style.to_png(figure)


def draw_curves(
    panel: Any, axis: Axis, points: Points, key: str, scale: float
) -> dict[str, Any]:
    """Draws `key * scale` along `axis` into matplotlib's Axes; the line by model."""
    from mnist_jax.plots import style

    lines = {}
    for model in _models(points):
        values, numbers = curve(axis, model, points, key)
        look = style.series_style(list(DEFAULTS).index(model), marker=True)
        (lines[model],) = panel.plot(
            values, np.array(numbers) * scale, **look, markersize=4, label=model
        )
    panel.set(xscale="log", yscale="log")
    panel.set_xticks(values, [f"{x}" for x in values], fontsize=8)
    panel.minorticks_off()
    style.clean(panel)
    return lines


def draw_guide(panel: Any, exponent: int) -> Any:
    """A line from below the lowest curve that grows as the value to `exponent`."""
    from mnist_jax.plots import style

    curves = panel.get_lines()
    values = np.array(curves[0].get_xdata(), float)
    # Guides of other exponents start at the same place.
    lowest = 0.7 * min(x.get_ydata()[0] for x in curves if x.get_label() in DEFAULTS)
    limits = panel.get_ylim()
    (guide,) = panel.plot(
        values,
        lowest * (values / values[0]) ** exponent,
        color=style.GREY,
        linestyle={1: "--", 2: ":"}[exponent],
        linewidth=1.2,
        zorder=1,
        label=_GUIDES[exponent],
    )
    panel.set_ylim(limits)
    return guide
