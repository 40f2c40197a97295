"""From a run's files to its PNG files."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mnist_jax.plots.select_examples import NUM_MISTAKES, NUM_RANDOM, rank_mistakes
from mnist_jax.storage import records

NUM_EXPLAINED = 12
MAX_IMAGES = 60  # of a user in one figure: 20 rows, a picture of 5,600 pixels

# matplotlib is imported inside the functions: it is slow, and training needs none.


def draw_all(workdir: Path) -> list[Path]:
    """Draws the figures of the run in `workdir` under its `figures/`.

    An unfinished run has `curves.png` alone.

    Returns:
      The files written.

    Raises:
      RecordsError: there is no run, no epoch of it is finished, a file is damaged or
        missing, and nothing was drawn; or a figure cannot be written.
    """
    from mnist_jax.plots import figures

    config = records.read_config(workdir)
    result = records.read_result(workdir)
    epochs = records.read_metrics(workdir, result)
    if not epochs:
        raise records.RecordsError(
            f"--workdir={workdir} holds no finished epoch in a {records.METRICS}: "
            "nothing to draw; give the folder of a run, or repeat the training command"
        )
    if config is None:
        raise records.RecordsError(
            f"{workdir / records.CONFIG} is missing: restore the file, or train again "
            "with --overwrite"
        )
    title = run_title(config.settings)
    drawn = {"curves": figures.curves(epochs, title)}
    if result is not None:
        predictions = records.read_predictions(workdir, result)
        drawn |= _test_figures(result, predictions, title)
    folder = workdir / records.FIGURES
    return [_write(folder / f"{name}.png", figure) for name, figure in drawn.items()]


def _test_figures(
    result: Mapping[str, Any], predictions: records.Predictions, title: str
) -> dict[str, Any]:
    """The figures of a finished run but for its curves, by name."""
    from mnist_jax.plots import figures

    names = result["class_names"]
    probabilities, labels = predictions.probabilities, predictions.labels
    position = {index: i for i, index in enumerate(predictions.shown)}
    random = predictions.shown[:NUM_RANDOM]
    mistakes = rank_mistakes(probabilities, labels)
    wrong = [index for index in mistakes[:NUM_MISTAKES] if index in position]

    def gather(indices):
        images = predictions.shown_images[[position[index] for index in indices]]
        return images, labels[indices], probabilities[indices]

    samples = predictions.sample_images, predictions.sample_labels
    matrix = np.array(result["confusion_matrix"])
    return {
        "samples": figures.samples(*samples, names, title),
        "confusion_matrix": figures.confusion_matrix(matrix, names, title),
        "predictions": figures.predictions(*gather(random), names, title),
        "mistakes": figures.mistakes(*gather(wrong), len(mistakes), names, title),
    }


def run_title(config: Mapping[str, Any]) -> str:
    """Model, data set and seed, as each figure's title states them."""
    model = str(config["model"])
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
    """Draws a user's images as the model saw them, with the probabilities.

    Of more than `MAX_IMAGES` images the first are drawn, as the title says.

    Args:
      path: the PNG file.
      names: N, of the images.
      images: uint8 [N, H, W, 1].
      probabilities: float32 [N, K].
      class_names: K.
      title: of the figure.

    Returns:
      `path`.

    Raises:
      RecordsError: the file cannot be written.
    """
    from mnist_jax.plots import figures

    if which := which_are_drawn(len(images)):
        title = f"{title}, {which}"
    shown = slice(MAX_IMAGES)
    figure = figures.predictions(
        images[shown, ..., 0],
        None,
        probabilities[shown],
        class_names,
        title,
        names[shown],
    )
    return _write(path, figure)


def draw_explanation(
    workdir: Path, compute: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]
) -> list[Path]:
    """Draws saliency.png and, of a model that reads time steps, reading.png.

    Args:
      workdir: of a run; one that is not complete gets neither.
      compute: from test images, uint8 [N, H, W, 1], to (saliency, float [N, H, W], 0 or
        more; probabilities after each time step, float [N, T, K], or None). Called at
        most once, so that it alone may import JAX.

    Returns:
      The files written.
    """
    from mnist_jax.plots import figures

    config, result = records.read_config(workdir), records.read_result(workdir)
    if result is None:
        return []
    found = records.read_predictions(workdir, result)
    places = _select_explained(found)
    indices, shown = found.shown[places], found.shown_images[places]
    saliency, reading = compute(shown[..., None])
    names, title = result["class_names"], run_title(config.settings)
    given = found.labels[indices], found.probabilities[indices], names
    largest = saliency.max((1, 2), keepdims=True)
    drawn = {
        "saliency": figures.with_maps(
            shown,
            saliency / np.maximum(largest, 1e-30),
            *given,
            f"Which pixels count: {title}",
            "right of each image the gradient of the predicted class's log-probability",
        )
    }
    if reading is not None:
        # As many rows as the image has, and columns of three pixels.
        steps = np.linspace(0, reading.shape[1] - 1, shown.shape[1]).round().astype(int)
        drawn["reading"] = figures.with_maps(
            shown,
            reading[:, steps].repeat(3, axis=2),
            *given,
            f"Reading an image: {title}",
            f"right of each image the probabilities of {names[0]} to {names[-1]}, left "
            "to right, after each time step, top to bottom",
        )
    folder = workdir / records.FIGURES
    return [_write(folder / f"{name}.png", figure) for name, figure in drawn.items()]


def _select_explained(found: records.Predictions) -> np.ndarray:
    """Places, int [N], among the shown test images.

    Those of the random ones that are correct, and the most confident mistakes.
    """
    wrong = found.probabilities.argmax(-1) != found.labels
    is_wrong = wrong[found.shown]
    mistakes = np.flatnonzero(is_wrong)[: NUM_EXPLAINED // 2]
    return np.append(
        np.flatnonzero(~is_wrong)[: NUM_EXPLAINED - len(mistakes)], mistakes
    )


def which_are_drawn(num_images: int) -> str:
    """'the first 60 of 700 images', or nothing where a figure shows them all."""
    if num_images <= MAX_IMAGES:
        return ""
    return f"the first {MAX_IMAGES} of {num_images:,} images"


def _write(path: Path, figure: Any) -> Path:
    from mnist_jax.plots.style import to_png

    png = to_png(figure)
    try:
        records.write_atomically(path, png)
    except OSError as error:
        raise records.RecordsError(
            f"{path} cannot be written ({error.strerror or error}): give that folder "
            "room and the right to write, or give a copy of the run as --workdir"
        ) from error
    return path
