"""The chart of a search: validation accuracy of its trials against each setting."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.accuracy.search.space import Range, Space
from mnist_jax.plots import style


def as_text(value: Any) -> str:
    """A setting's value, short, as its flag takes it."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def draw(trials: Sequence[Mapping[str, Any]], space: Space, title: str) -> bytes:
    """A panel for each setting, a dot for each trial, as a PNG file.

    Args:
      trials: see `halving.Search`.
      space: of the search.
      title: of the figure.
    """
    columns = min(4, len(space))
    figure, panels = style.panels(len(space), 3.4, 3, title, columns, sharey=True)
    accuracy = [trial["scores"][-1]["validation_accuracy"] for trial in trials]
    epochs = [len(trial["scores"]) for trial in trials]
    for panel, (name, values) in zip(panels, space.items(), strict=True):
        places = _place(panel, values, [trial["settings"][name] for trial in trials])
        points = panel.scatter(
            places, accuracy, c=epochs, cmap="viridis_r", s=28, edgecolor="black",
            linewidth=0.4,
        )  # fmt: skip
        panel.set_xlabel(name)
        if panel.get_xscale() == "log":
            style.plain_log_ticks(panel.xaxis)
            panel.tick_params(axis="x", labelrotation=45, labelsize=8)
        style.clean(panel)
    # A trial that learned nothing must not press all others into one line.
    low = np.quantile(accuracy, 0.25)
    bottom = max(0.0, low - 1.5 * (max(accuracy) - low) - 0.005)
    panels[0].set_ylim(bottom, 1 + 0.03 * (1 - bottom))
    for panel in panels[::columns]:
        panel.set_ylabel("validation accuracy")
    panels[0].yaxis.set_major_formatter(lambda y, _: f"{y:.1%}")
    if len(set(epochs)) > 1:
        figure.colorbar(points, ax=list(panels), label="epochs trained", shrink=0.8)
    return style.to_png(figure)


def _place(panel: Any, own: Any, values: Sequence[Any]) -> Sequence[float]:
    """Sets up the panel's axis of a setting; where on it the values are."""
    if all(isinstance(value, float) for value in values):
        if isinstance(own, Range) and own.is_logarithmic:
            panel.set_xscale("log")
        return values
    texts = [as_text(value) for value in values]
    ticks = sorted(set(texts), key=texts.index)
    panel.set_xticks(range(len(ticks)), ticks)
    panel.set_xlim(-0.5, len(ticks) - 0.5)
    return [ticks.index(text) for text in texts]
