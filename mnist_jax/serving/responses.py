"""The bodies of responses, as JSON's types; computed in the worker thread."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mnist_jax import images
from mnist_jax.serving import bodies, drawings
from mnist_jax.serving.served_run import ServedRun

_PNG = b"\x89PNG\r\n\x1a\n"


def predict_array(
    runs: Sequence[ServedRun], body: bytes, kind: str, shape: tuple[int, ...]
) -> dict[str, Any]:
    """Class and probabilities of each image of an array, by each run."""
    array = bodies.parse_images(body, kind, shape)
    return {"runs": [_predictions(run, array) for run in runs]}


def predict_picture(
    runs: Sequence[ServedRun], body: bytes, shape: tuple[int, ...]
) -> dict[str, Any]:
    """As `predict_array`, with the image that the model sees, None of a blank one."""
    try:
        image = runs[0].reader(io.BytesIO(body), shape[:2])
    except images.NoDigitError as error:
        return {"image": None, "error": str(error), "runs": []}
    found = []
    for run in runs:
        reading = run.reading(image)
        of_steps = None if reading is None else _rounded(reading)
        found.append({**_predictions(run, image[None]), "reading": of_steps})
    return {"image": image[..., 0].tolist(), "runs": found}


def _predictions(run: ServedRun, array: np.ndarray) -> dict[str, Any]:
    probabilities = run.predict(array)
    return {
        "name": run.name,
        "classes": [run.class_names[i] for i in probabilities.argmax(-1)],
        "probabilities": _rounded(probabilities),
    }


def saliency(
    runs: Sequence[ServedRun], body: bytes, shape: tuple[int, ...]
) -> list[dict[str, Any]]:
    """Each run's map of a picture; the largest value of each is 1."""
    image = runs[0].reader(io.BytesIO(body), shape[:2])
    maps = [run.saliency(image) for run in runs]
    return [
        {"name": run.name, "saliency": _rounded(one / max(one.max(), 1e-30))}
        for run, one in zip(runs, maps, strict=True)
    ]


def keep(
    runs: Sequence[ServedRun],
    folder: Path,
    class_name: str,
    body: bytes,
    shape: tuple[int, ...],
) -> dict[str, str]:
    """Writes a drawing in which there is something to learn."""
    if not body.startswith(_PNG):
        raise bodies.BodyError("the body is no PNG file: expected a drawing as PNG")
    runs[0].reader(io.BytesIO(body), shape[:2])  # what can be trained on
    return {"file": str(drawings.keep(folder, class_name, body))}


def _rounded(array: np.ndarray) -> list:
    """As JSON shows it: six places."""
    return np.round(array.astype(np.float64), 6).tolist()
