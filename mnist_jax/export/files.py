"""Writes a run's export/, whose every file gives the run's own logits.

    model.safetensors  the weights, by name
    model.stablehlo    the program for JAX on CPU, GPU and TPU, weights included
    model.onnx         the same for ONNX runtimes; where onnx is installed
    check.npz          some images, their logits, and the names of the classes
    run.py             checks all files, and classifies images by model.stablehlo
    SHA256SUMS         of the others, as `sha256sum -c` takes it

They are written to a folder beside, read back and run there, and then moved.
"""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util
from safetensors import numpy as safetensors

from mnist_jax import extras, predict, signals
from mnist_jax.config import Config, decisive
from mnist_jax.errors import first_line
from mnist_jax.export import run
from mnist_jax.export.errors import ExportError
from mnist_jax.export.program import Program, to_stablehlo, trace
from mnist_jax.result import versions
from mnist_jax.storage import records
from mnist_jax.storage.stored_config import Facts
from mnist_jax.storage.stored_run import require_config

SCHEMA = 1
NUM_CHECKED = 32  # images

WEIGHTS, STABLEHLO, ONNX = "model.safetensors", "model.stablehlo", "model.onnx"


class Check(NamedTuple):
    """What every file has to give."""

    images: np.ndarray  # uint8 [NUM_CHECKED, H, W, 1]
    logits: np.ndarray  # float32 [NUM_CHECKED, K], of the run's own classifier
    class_names: np.ndarray  # str [K]


class Exported(NamedTuple):
    """What was written."""

    folder: Path
    sizes: dict[str, int]  # bytes, by the name of the file
    is_complete: bool  # whether the run had trained to its end
    onnx_error: ExportError | None  # why there is no model.onnx, if it was tried


def export_run(workdir: Path) -> Exported:
    """Writes the last checkpoint of a run to its export/.

    All is computed in float32, also that of a run that trained in bfloat16, whose
    weights are float32.

    Args:
      workdir: the run's folder.

    Raises:
      RecordsError, CheckpointError: there is no run that can be read.
      ExportError: a file cannot be made or written, or does not give the run's logits;
        what was exported before is left as it was.
    """
    config, _, facts = require_config(workdir)
    result = records.read_result(workdir)
    images = _choose_images(workdir, result, facts.image_shape)
    metadata = _describe(config, facts, result)
    # As the exported programs have it; GPU and TPU have fewer bits by default.
    with jax.default_matmul_precision("highest"):
        classifier = predict.load_classifier(workdir, precision="float32")
        logits = classifier.classify(images)
        check = Check(images, logits, np.array(facts.class_names))
        params = jax.device_get(classifier.params)
        program = trace(classifier.model, params, facts.image_shape, config.eval_views)
        stablehlo = _make_stablehlo(program)
        folder = workdir / records.EXPORT
        try:
            with signals.temporary_folder(dir=workdir, prefix=".export.") as stage:
                onnx_error = None
                if extras.is_installed("onnx"):
                    onnx_error = _stage_onnx(stage / ONNX, program, metadata, check)
                _stage(stage, program.params, stablehlo, metadata, check)
                _verify(stage, classifier, check)
                sizes = _move(stage, folder)
        except OSError as error:
            raise ExportError(
                f"{folder} cannot be written ({error.strerror or error}): give that "
                "folder room and the right to write, or give a copy of the run as "
                "--workdir"
            ) from error
    return Exported(folder, sizes, result is not None, onnx_error)


def _choose_images(
    workdir: Path, result: Mapping[str, Any] | None, shape: tuple[int, ...]
) -> np.ndarray:
    """Test images, then training images, that a complete run keeps; then noise."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (NUM_CHECKED, *shape), np.uint8)
    predictions = records.read_predictions(workdir, result)
    if predictions is None:
        return noise
    kept = np.concatenate([predictions.shown_images, predictions.sample_images])
    return np.concatenate([kept[..., None], noise])[:NUM_CHECKED]


def _describe(
    config: Config, facts: Facts, result: Mapping[str, Any] | None
) -> dict[str, str]:
    """The metadata of the files; what is no text is JSON."""
    settings = {
        name: value
        for name, value in decisive(config.to_dict()).items()
        if value is not None
    }
    mixed = config.precision != "float32"
    return {
        "schema": str(SCHEMA),
        "settings": json.dumps(settings),
        "class_names": json.dumps(facts.class_names),
        "test_accuracy": str(result["test_accuracy"]) if result else "none",
        "image_shape": json.dumps(facts.image_shape),
        "preprocessing": "images are uint8, 0 to 255, light strokes on black; programs "
        "divide them by 255, and weights alone expect that",
        "precision": "float32"
        + (f"; trained with matmuls of {config.precision}" if mixed else ""),
        "versions": json.dumps(versions()),
    }


def to_safetensors(
    params: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> bytes:
    """Arrays by name, and texts."""
    # The library writes the memory of an array whatever its strides.
    tensors = {name: np.asarray(x, order="C") for name, x in params.items()}
    return safetensors.save(tensors, dict(metadata))


def _make_stablehlo(program: Program) -> bytes:
    try:
        return to_stablehlo(program)
    except Exception as error:  # JAX has many
        raise ExportError(
            f"{STABLEHLO} cannot be made ({first_line(error)}): expected a model that "
            "takes batches of any size; change it, and use --mode=predict until then"
        ) from error


def _stage_onnx(
    path: Path, program: Program, metadata: Mapping[str, str], check: Check
) -> ExportError | None:
    """Writes model.onnx; returns why not, where the model has no such form."""
    from mnist_jax.export import onnx_model  # imports an optional extra

    try:
        records.write_atomically(path, onnx_model.to_onnx(program, metadata))
        _verify_batches(onnx_model.load(path), check)
        return None
    except OSError:
        raise
    except Exception as error:  # ONNX and its runtimes have many
        path.unlink(missing_ok=True)
        if isinstance(error, ExportError):
            return error
        return ExportError(
            f"{ONNX} is not written ({first_line(error)}): use {STABLEHLO}"
        )


def _stage(
    stage: Path,
    params: Mapping[str, np.ndarray],
    stablehlo: bytes,
    metadata: Mapping[str, str],
    check: Check,
) -> None:
    """Writes all but model.onnx, the sums last."""
    arrays = io.BytesIO()
    np.savez_compressed(arrays, **check._asdict())
    contents = {
        WEIGHTS: to_safetensors(params, metadata),
        STABLEHLO: stablehlo,
        "check.npz": arrays.getvalue(),
        "run.py": Path(run.__file__).read_bytes(),
    }
    for name, content in contents.items():
        records.write_atomically(stage / name, content)
    lines = run.sums(stage).values()
    records.write_atomically(stage / run.SUMS, "".join(lines).encode())


def _verify(stage: Path, classifier: predict.Classifier, check: Check) -> None:
    """Raises ExportError unless weights and program give the run's logits."""
    name = STABLEHLO
    try:
        model, _, _ = run.load(stage)
        _verify_batches(model, check)
        name = WEIGHTS
        tensors = safetensors.load_file(stage / WEIGHTS)
        params = traverse_util.unflatten_dict(tensors, sep="/")
        run.check_logits(classifier.predict_logits(params, check.images), check.logits)
    except OSError:
        raise
    except Exception as error:  # JAX and Flax have many
        raise ExportError(
            f"{name} is not written ({first_line(error)}): nothing is changed; use "
            "--mode=predict, and change the model or the version of JAX"
        ) from error


def _verify_batches(model: Callable[[np.ndarray], Any], check: Check) -> None:
    """Raises ValueError unless batches of all images and of one give their logits."""
    for part in (slice(None), slice(1)):
        logits = np.asarray(model(check.images[part]))
        run.check_logits(logits, check.logits[part])


def _move(stage: Path, folder: Path) -> dict[str, int]:
    """Moves all files, the sums last; returns their sizes."""
    folder.mkdir(exist_ok=True)
    paths = sorted(stage.iterdir(), key=lambda path: (path.name == run.SUMS, path.name))
    for name in run.NAMES:
        if not (stage / name).exists():
            (folder / name).unlink(missing_ok=True)
    for path in paths:
        path.replace(folder / path.name)
    return {path.name: (folder / path.name).stat().st_size for path in paths}
