"""Figures from records: the package's only user of matplotlib.

`draw_all` draws from the files of a run; nothing here trains or loads data, so
figures can be drawn again at any time.
"""

from mnist_jax.plots.draw import (
    draw_all,
    draw_explanation,
    draw_image_predictions,
    which_are_drawn,
)
from mnist_jax.plots.select_examples import select_examples

__all__ = [
    "draw_all",
    "draw_explanation",
    "draw_image_predictions",
    "select_examples",
    "which_are_drawn",
]
