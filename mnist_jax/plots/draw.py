"""From a run's folder to its PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mnist_jax import records
from mnist_jax.config import Config
from mnist_jax.plots.choice import NUM_MISTAKES, NUM_RANDOM, rank_mistakes


def draw_all(workdir: Path) -> list[Path]:
    """Draws the figures of the run in `workdir` under its `figures/`.

    A run that is not finished has its curves alone.

    Returns:
      The files written.

    Raises:
      RecordsError: there is no run, or no epoch of it is finished.
    """
    from mnist_jax.plots import figures

    config = records.read_config(workdir, Config.from_dict)
    epochs = records.read_metrics(workdir)
    if config is None or not epochs:
        raise records.RecordsError(
            f"--workdir={workdir} holds no finished epoch: nothing to draw; give the "
            "folder of a run"
        )
    title = run_title(config.to_dict())
    drawn = {"curves": figures.curves(epochs, title)}
    result = records.read_result(workdir)
    predictions = records.read_predictions(workdir)
    if result is not None and predictions is not None:
        names = result["class_names"]
        probabilities, labels = predictions.probabilities, predictions.labels
        place = {row: i for i, row in enumerate(predictions.shown)}
        mistakes = rank_mistakes(probabilities, labels)
        unseen = predictions.shown[:NUM_RANDOM]
        wrong = [row for row in mistakes[:NUM_MISTAKES] if row in place]

        def pick(rows):
            images = predictions.shown_images[[place[row] for row in rows]]
            return images, labels[rows], probabilities[rows]

        samples = predictions.sample_images, predictions.sample_labels
        drawn |= {
            "samples": figures.samples(*samples, names, title),
            "confusion_matrix": figures.confusion_matrix(
                np.array(result["confusion_matrix"]), names, title
            ),
            "predictions": figures.predictions(*pick(unseen), names, title),
            "mistakes": figures.mistakes(*pick(wrong), len(mistakes), names, title),
        }
    folder = workdir / records.FIGURES
    return [_write(folder / f"{name}.png", figure) for name, figure in drawn.items()]


def run_title(config: Mapping[str, Any]) -> str:
    """Model, data set and seed, as each figure's title states them."""
    model = config["model"]
    model = model.upper() if model != "linear" else "Linear"
    return f"{model} on {config['dataset']}, seed {config['seed']}"


def draw_image_predictions(
    path: Path,
    names: Sequence[str],
    images: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    title: str,
) -> Path:
    """Draws a person's images as the model saw them, with all probabilities.

    Args:
      path: the PNG file.
      names: one per image.
      images: uint8 [N, 28, 28, 1].
      probabilities: float32 [N, 10].
      class_names: 10.
      title: of the figure.
    """
    from mnist_jax.plots import figures

    figure = figures.predictions(
        images[..., 0], None, probabilities, class_names, title, names
    )
    return _write(path, figure)


def draw_comparison(path: Path, rows: Sequence[Mapping[str, Any]], title: str) -> Path:
    """Draws accuracy and training time of several models.

    Args:
      path: the PNG file.
      rows: each with 'model', 'test_accuracy', 'spread' (both shares) and
        'train_seconds'.
      title: of the figure.
    """
    from mnist_jax.plots import figures

    return _write(path, figures.comparison(rows, title))


def _write(path: Path, figure) -> Path:
    from mnist_jax.plots.canvas import to_png

    records.write_atomically(path, to_png(figure))
    return path
