"""What `launch.py` does: one function for each mode, which prints what it found.

Each imports what it needs: figures are drawn without JAX, which is slow to import.
"""

import contextlib
import gc
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mnist_jax import images, plots, signals, tensorboard
from mnist_jax.errors import EXPECTED, UserError, UserErrors
from mnist_jax.formats import counted, format_loss
from mnist_jax.settings import ConfigError
from mnist_jax.storage import records
from mnist_jax.storage import workdir as workdir_lib

_AGAIN = "the same command starts again"


@signals.advice("no run was changed; the same command starts again")
def train(
    settings: Mapping[str, Any],
    workdir: str | None,
    overwrite: bool,
    writes_events: bool,
    processes: Mapping[str, Any],
) -> None:
    """Trains a run, or goes on with it, draws its figures and prints its score.

    Args:
      settings: of `make_config`; None for those that are not given.
      workdir: the run's folder; None for runs/<dataset>-<model>-<seed>.
      overwrite: replace the run that is there.
      writes_events: for TensorBoard.
      processes: see `devices.start`.
    """
    from mnist_jax.config import make_config
    from mnist_jax.parallel import devices, multihost

    make_config(**settings)  # wrong settings are told before data is fetched
    folder = None if workdir is None else workdir_lib.parse(workdir)
    if writes_events:
        tensorboard.check()
    devices.start(settings["num_devices"] or 0, **processes)
    with contextlib.ExitStack() as stack:
        if multihost.is_multiprocess():
            # They stop together, where the training loop looks at signals.
            stack.enter_context(signals.noted())
        _train(settings, folder, overwrite, writes_events)


def _train(
    settings: Mapping[str, Any],
    folder: Path | None,
    overwrite: bool,
    writes_events: bool,
) -> None:
    """`train`, once the devices are there."""
    from mnist_jax import data, training
    from mnist_jax.config import absolute_folder, make_config
    from mnist_jax.parallel import multihost

    gc.freeze()  # what was imported
    gc.enable()
    with _together():
        dataset = data.prepare(
            settings["dataset"], settings["data_dir"], settings["raw_dir"]
        )
        config = make_config(**settings | {"dataset": dataset} | {
            # In the record, where the data are does not depend on where one stands.
            name: absolute_folder(settings[name]) for name in ("data_dir", "raw_dir")
        })  # fmt: skip
    folder = folder or Path("runs") / f"{config.dataset}-{config.model}-{config.seed}"
    events = tensorboard.EventFiles(folder) if writes_events else None
    starts = []

    def on_epochs(epochs):
        starts.append(len(epochs))
        if events:
            events.write(epochs)

    result = training.train_and_evaluate(config, folder, overwrite, on_epochs)
    with _together():
        if multihost.is_main_process():
            if events:
                events.write(records.read_metrics(folder))
            if not starts:
                print(f"{folder} was complete before; --overwrite trains it again")
            _print_result(result, folder)
            plots.draw_all(folder)


@contextlib.contextmanager
def _together() -> Iterator[None]:
    """Of several processes all go on, or all end with a line."""
    from mnist_jax.parallel import multihost

    with multihost.translate_lost_process():
        with multihost.propagate_errors(EXPECTED):
            yield


def _print_result(result: Mapping[str, Any], workdir: Path) -> None:
    print(
        f"test accuracy {result['test_accuracy']:.2%}, "
        f"loss {format_loss(result['test_loss'])} "
        f"on the {result['num_test_images']:,} test images of {result['dataset']}\n"
        f"trained {counted(result['epochs'], 'epoch')} "
        f"in {result['train_seconds']:.1f} s, "
        f"compiled in {result['compile_seconds']:.1f} s\n"
        f"records in {workdir}, figures in {workdir / records.FIGURES}"
    )


@signals.advice(_AGAIN)
def evaluate(workdir: str, data_dir: str | None, raw_dir: str | None) -> None:
    """Prints the scores of the run's last checkpoint."""
    from mnist_jax import predict
    from mnist_jax.parallel import devices

    folder = workdir_lib.parse(workdir)
    devices.start()
    found = predict.evaluate(folder, data_dir, raw_dir)
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
def predict_images(workdir: str, paths: Sequence[str]) -> None:
    """Prints and draws the predictions for image files.

    Args:
      workdir: of a trained run.
      paths: of the files; empty ones are left out.

    Raises:
      UserErrors: some files cannot be used, or the figure cannot be written. What can
        be predicted is printed before.
    """
    from mnist_jax import data, predict
    from mnist_jax.parallel import devices

    paths = [path for path in paths if path]
    if not paths:
        raise ConfigError(
            "--mode=predict needs --images: give files, as in --images=a.png,b.png"
        )
    folder = workdir_lib.parse(workdir)
    config = predict.load_config(folder)
    source = data.DATASETS[config.dataset]
    pictures, errors = _read_images(paths, source.image_shape[:2])
    if pictures:
        devices.start()
        shown = [path for path, _ in pictures]
        stack = np.stack([picture for _, picture in pictures])
        probabilities = predict.predict(folder, stack)
        _print_predictions(shown, probabilities, source.class_names)
        try:
            figure = plots.draw_image_predictions(
                folder / records.FIGURES / "images.png",
                [os.fsencode(Path(p).name).decode(errors="replace") for p in shown],
                stack,
                probabilities,
                source.class_names,
                f"{config.model} trained on {config.dataset}",
            )
            which = plots.which_are_drawn(len(shown))
            print(f"figure {f'of {which} ' if which else ''}in {figure}")
        except UserError as error:
            errors.append(error)
    if errors:
        raise UserErrors(errors)


def _read_images(
    paths: Sequence[str], shape: tuple[int, int]
) -> tuple[list[tuple[str, np.ndarray]], list[UserError]]:
    """(path, picture) of those that can be read, and the errors of the others."""
    pictures, errors = [], []
    for path in paths:
        try:
            pictures.append((path, images.read_image(path, shape)))
        except images.ImageError as error:
            errors.append(error)
    return pictures, errors


def _print_predictions(
    paths: Sequence[str], probabilities: np.ndarray, names: Sequence[str]
) -> None:
    for path, row in zip(paths, probabilities, strict=True):
        shares = "  ".join(
            f"{name} {share:.3f}" for name, share in zip(names, row, strict=True)
        )
        print(f"{path}: {names[row.argmax()]} ({row.max():.1%})  [{shares}]")


@signals.advice(_AGAIN)
def plot(workdir: str) -> None:
    """Draws the run's figures again and prints their paths."""
    for path in plots.draw_all(workdir_lib.parse(workdir)):
        print(path)


@signals.advice(_AGAIN)
def export_run(workdir: str) -> None:
    """Writes the run's last checkpoint as files for other programs, and names them.

    Raises:
      ExportError: model.onnx or nothing could be written.
    """
    from mnist_jax.export import extras

    extras.check()
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
