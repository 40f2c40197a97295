"""What `launch.py` does: one function for each mode, which prints what it found.

Each imports what it needs: figures are drawn without JAX, which is slow to import.
"""

import contextlib
import gc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mnist_jax import images, plots, printing, signals, tensorboard
from mnist_jax.errors import EXPECTED, UserError, UserErrors
from mnist_jax.formats import format_loss
from mnist_jax.settings import ConfigError
from mnist_jax.storage import records
from mnist_jax.storage import workdir as workdir_lib

# The flags that a mode takes, beside those that any program takes.
TAKEN = {
    "evaluate": ("workdir", "data_dir", "raw_dir"),
    "predict": ("workdir", "images"),
    "plot": ("workdir",),
}
MODES = ("train", *TAKEN)

_AGAIN = "the same command starts again"


def check_flags(mode: str, given: Sequence[str]) -> None:
    """Refuses flags that have no effect, and asks for those that are missing.

    Args:
      mode: in `MODES`.
      given: names of the flags on the command line that not every program has.
    """
    if mode == "train":
        if "images" in given:
            raise ConfigError(
                "--images has no effect without --mode=predict: give that, or leave it "
                "out"
            )
        return
    for name in given:
        if name not in TAKEN[mode]:
            raise ConfigError(
                f"--{name} has no effect with --mode={mode}, which takes the run's own "
                "settings: leave it out"
            )
    if "workdir" not in given:
        raise ConfigError(
            f"--mode={mode} needs --workdir: give the folder of a trained run"
        )


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
    if settings["init_from"] is not None:
        workdir_lib.parse(settings["init_from"], "init_from")
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
            settings["dataset"],
            settings["data_dir"],
            settings["raw_dir"],
            settings["preprocess"],
        )
        config = make_config(**settings | {"dataset": dataset} | {
            # In the record, where these are does not depend on where one stands.
            name: absolute_folder(settings[name])
            for name in ("data_dir", "raw_dir", "init_from")
        })  # fmt: skip
    folder = folder or Path("runs") / f"{config.dataset}-{config.model}-{config.seed}"
    events = tensorboard.EventFiles(folder) if writes_events else None
    starts = []

    def on_epochs(epochs):
        if not starts and config.init_from:
            printing.print_start(folder)
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
            printing.print_result(result, folder)
            plots.draw_all(folder)


@contextlib.contextmanager
def _together() -> Iterator[None]:
    """Of several processes all go on, or all end with a line."""
    from mnist_jax.parallel import multihost

    with multihost.translate_lost_process():
        with multihost.propagate_errors(EXPECTED):
            yield


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
    from mnist_jax import predict
    from mnist_jax.parallel import devices
    from mnist_jax.storage.stored_run import require_config

    paths = [path for path in paths if path]
    if not paths:
        raise ConfigError(
            "--mode=predict needs --images: give files, as in --images=a.png,b.png"
        )
    folder = workdir_lib.parse(workdir)
    config, _, facts = require_config(folder)
    reader, shape = images.READERS[config.preprocess], facts.image_shape[:2]
    pictures, errors = _read_images(paths, lambda path: reader(path, shape))
    if pictures:
        devices.start()
        shown = [path for path, _ in pictures]
        stack = np.stack([picture for _, picture in pictures])
        probabilities = predict.predict(folder, stack)
        printing.print_predictions(shown, probabilities, facts.class_names)
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


def _read_images(
    paths: Sequence[str], reader: Callable[[str], np.ndarray]
) -> tuple[list[tuple[str, np.ndarray]], list[UserError]]:
    """(path, picture) of those that can be read, and the errors of the others."""
    pictures, errors = [], []
    for path in paths:
        try:
            pictures.append((path, reader(path)))
        except images.ImageError as error:
            errors.append(error)
    return pictures, errors


@signals.advice(_AGAIN)
def plot(workdir: str) -> None:
    """Draws the run's figures again and prints their paths."""
    for path in plots.draw_all(workdir_lib.parse(workdir)):
        print(path)
