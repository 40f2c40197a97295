"""`--mode=train`: a run from its data to its figures."""

import contextlib
import gc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mnist_jax import large_pages, plots, printing, signals, tensorboard
from mnist_jax.errors import EXPECTED
from mnist_jax.storage import records
from mnist_jax.storage import workdir as workdir_lib


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

    config = make_config(**settings)  # wrong settings are told before data is fetched
    if config.sequence in ("pixels", "permuted"):
        large_pages.restart_with_them()
    if settings["init_from"] is not None:
        workdir_lib.parse(settings["init_from"], "init_from")
    if settings["teacher"] is not None:
        for path in settings["teacher"].split(","):
            workdir_lib.parse(path, "teacher")
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
    from mnist_jax.config import absolute_folder, absolute_folders, make_config
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
        } | {"teacher": absolute_folders(settings["teacher"])})  # fmt: skip
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
                events.close()
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
