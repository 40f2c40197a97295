"""Figures from records: the only user of matplotlib.

`draw_all` reads a run's files and draws; nothing here trains or loads data, so
figures can be drawn again at any time.
"""

from mnist_jax.plots.choice import choose_shown
from mnist_jax.plots.draw import draw_all, draw_comparison, draw_image_predictions

__all__ = ["choose_shown", "draw_all", "draw_comparison", "draw_image_predictions"]
