"""The modes that put a trained run to use."""

import concurrent.futures
import csv
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mnist_jax import compilation_cache, extras, images, plots, printing, signals
from mnist_jax.errors import UserError, UserErrors
from mnist_jax.formats import counted, format_loss
from mnist_jax.settings import ConfigError
from mnist_jax.storage import records
from mnist_jax.storage import workdir as workdir_lib

_AGAIN = "the same command starts again"


@signals.advice(_AGAIN)
def evaluate(
    workdir: str, data_dir: str | None, raw_dir: str | None, eval_views: int | None
) -> None:
    """Prints the scores of the run's last checkpoint."""
    from mnist_jax import predict
    from mnist_jax.config import SETTINGS
    from mnist_jax.parallel import devices

    folder = workdir_lib.parse(workdir)
    if eval_views is not None:
        SETTINGS["eval_views"].check(eval_views)
    devices.start()
    found = predict.evaluate(folder, data_dir, raw_dir, eval_views)
    if not found.is_complete:
        print(
            f"unfinished: {found.epoch} of {found.num_epochs} epochs are trained; the "
            "test set is scored at the end"
        )
    for part, score in found.scores.items():
        print(
            f"{part} accuracy {score['accuracy']:.2%}, "
            f"loss {format_loss(score['loss'])} on "
            f"{score['num_images']:,} images of {found.dataset}"
        )


@signals.advice(_AGAIN)
def predict_images(workdir: str, paths: Sequence[str], output: str | None) -> None:
    """Prints or writes the predictions for image files, and draws them.

    Args:
      workdir: of a trained run.
      paths: of files and folders, and patterns of these; empty ones are left out.
      output: a CSV file to write instead of printing a line for each image.

    Raises:
      UserErrors: some files cannot be used, or the figure cannot be written. What can
        be predicted is printed or written before.
    """
    from mnist_jax import predict
    from mnist_jax.parallel import devices
    from mnist_jax.storage.stored_run import require_config

    paths = [path for path in paths if path]
    if not paths:
        raise ConfigError(
            "--mode=predict needs --images: give files, as in --images=a.png,b.png, or "
            "a folder"
        )
    table = None if output is None else _parse_output(output)
    folder = workdir_lib.parse(workdir)
    config, _, facts = require_config(folder)
    reader, shape = images.READERS[config.preprocess], facts.image_shape[:2]
    files, errors = images.find_files(paths)
    pictures, unreadable = _read_images(files, lambda path: reader(path, shape))
    errors += unreadable
    if pictures:
        devices.start()
        shown = [path for path, _ in pictures]
        stack = np.stack([picture for _, picture in pictures])
        probabilities = predict.predict(folder, stack)
        if table is None:
            printing.print_predictions(shown, probabilities, facts.class_names)
        else:
            lines = _to_csv(shown, probabilities, facts.class_names)
            records.write_atomically(table, lines)
            print(f"{counted(len(shown), 'prediction')} in {table}")
        try:
            figure = plots.draw_image_predictions(
                folder / records.FIGURES / "images.png",
                [os.fsencode(Path(p).name).decode(errors="replace") for p in shown],
                stack,
                probabilities,
                facts.class_names,
                f"{config.model} trained on {config.dataset}",
            )
            which = plots.which_are_drawn(len(shown))
            print(f"figure {f'of {which} ' if which else ''}in {figure}")
        except UserError as error:
            errors.append(error)
    if errors:
        raise UserErrors(errors)


def _parse_output(output: str) -> Path:
    path = images.expand_user(Path(output))
    if path.is_symlink():  # which is kept
        path = Path(os.path.realpath(path))
    is_other = path.exists() and not path.is_file()  # a folder or, as /dev/null, device
    if is_other or not path.parent.is_dir():
        raise ConfigError(
            f"--output={output}: expected a file in a folder that there is: give "
            "another, as --output=predictions.csv"
        )
    return path


def _read_images(
    paths: Sequence[str], reader: Callable[[str], np.ndarray]
) -> tuple[list[tuple[str, np.ndarray]], list[UserError]]:
    """(path, picture) of those that can be read, and the errors of the others."""
    from mnist_jax import progress

    def read(path):
        try:
            return reader(path)
        except images.ImageError as error:
            return error

    pictures, errors = [], []
    with concurrent.futures.ThreadPoolExecutor() as pool:
        found = progress.bar(pool.map(read, paths), len(paths), " images")
        for path, picture in zip(paths, found, strict=True):
            if isinstance(picture, images.ImageError):
                errors.append(picture)
            else:
                pictures.append((path, picture))
    return pictures, errors


def _to_csv(
    paths: Sequence[str], probabilities: np.ndarray, names: Sequence[str]
) -> bytes:
    """A line for each image: file, class, the probability of each class."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["file", "class", *names])
    for path, row in zip(paths, probabilities, strict=True):
        shares = (f"{share:.6f}" for share in row)
        writer.writerow([path, names[row.argmax()], *shares])
    return text.getvalue().encode(errors="surrogateescape")  # as the system names files


@signals.advice(_AGAIN)
def serve(workdirs: str, port: int, drawings: str) -> None:
    """Serves a page to draw on, until Ctrl-C.

    Args:
      workdirs: of trained runs, with commas; all with images of one shape.
      port: of 127.0.0.1.
      drawings: folder where drawings are kept.
    """
    extras.check("--mode=serve", "serve", "starlette", "uvicorn")
    from mnist_jax.parallel import devices
    from mnist_jax.serving import app
    from mnist_jax.serving.served_run import ServedRun

    folders = [workdir_lib.parse(one) for one in workdirs.split(",") if one]
    if not folders:
        raise ConfigError("--workdir is empty: give the folder of a trained run")
    kept = workdir_lib.parse(drawings, "drawings")
    devices.start()
    runs = [ServedRun(folder) for folder in folders]
    for run in runs[1:]:
        if (run.image_shape, run.reader) != (runs[0].image_shape, runs[0].reader):
            raise ConfigError(
                f"--workdir={workdirs}: {run.name} and {runs[0].name} take images of "
                "different sizes or --preprocess: serve them by two commands"
            )
    app.serve(runs, port, kept)


@signals.advice(_AGAIN)
def plot(workdir: str, keeps_programs: bool) -> None:
    """Draws the run's figures again and prints their paths.

    Those of the records come first: they need no JAX, which is slow to import. Of a
    complete run `saliency.png` and `reading.png` follow, by its last checkpoint.

    Args:
      workdir: of a run.
      keeps_programs: whether to use the compilation cache.
    """
    folder = workdir_lib.parse(workdir)
    for path in plots.draw_all(folder):
        print(path)

    def explain(pictures):
        if keeps_programs:
            compilation_cache.start()
        from mnist_jax import predict
        from mnist_jax.parallel import devices

        devices.start()
        return predict.explain(folder, pictures)

    for path in plots.draw_explanation(folder, explain):
        print(path)


@signals.advice(_AGAIN)
def export_run(workdir: str) -> None:
    """Writes the run's last checkpoint as files for other programs, and names them.

    Raises:
      ExportError: model.onnx or nothing could be written.
    """
    extras.check("--mode=export", "export", "flatbuffers", "safetensors")
    from mnist_jax.export import files
    from mnist_jax.parallel import devices

    folder = workdir_lib.parse(workdir)
    devices.start()
    exported = files.export_run(folder)
    if not exported.is_complete:
        print("unfinished: the last checkpoint is exported; the test set is not scored")
    for name, size in exported.sizes.items():
        print(f"{exported.folder / name}: {size:,} bytes")
    if exported.onnx_error:
        raise exported.onnx_error
    if files.ONNX not in exported.sizes:
        print(f"no {files.ONNX}: it needs pip install -e '.[onnx]'")
