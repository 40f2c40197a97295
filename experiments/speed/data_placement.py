"""What does it cost to keep the training images in the host's memory?

    python -m experiments.speed.data_placement --dataset=mnist

Times an epoch of each model with all images on the devices and with images that are
sent as they are needed (`--data_placement=host`). Both take turns, so that a change of
the machine's speed meets both; ratios are taken within a round. Models, batches and
Adam are those of `benchmark_frameworks`. After the same epochs both have the same
weights to the last bit, or the study fails.

Then random images are written to a file, which is mapped into memory, and mlp trains an
epoch on them, each in a process of its own: seconds, and the memory that the process
takes at most beyond what the libraries have, without what only maps the file. 8,000,000
images take 6.3 GB of disk, under --workdir, for as long as the study runs.

Writes data_placement.json, .md and report.html under --workdir. Takes 15 minutes on two
cores. Results: docs/performance.md.
"""

import os
import shutil
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags

from experiments.common import machine, study_flags
from experiments.common.report import Page, write_all
from experiments.common.table import Table, column
from experiments.speed import plain_runs, timing
from experiments.speed.frameworks import families
from experiments.speed.placement_parts import measurement
from mnist_jax import cli, data
from mnist_jax.errors import UserError
from mnist_jax.parallel import devices
from mnist_jax.settings import ConfigError

_TURN_SECONDS = 2.0
_PLACEMENTS = ("device", "host")
_MODULE = "experiments.speed.placement_parts.measurement"

TIMES = (
    column("model", "model"),
    column("on the devices, s per epoch", "device", "{:.2f}"),
    column("on the host, s per epoch", "host", "{:.2f}"),
    column("host over devices (lowest to highest)", "ratio", timing.MEDIAN_RANGE),
)
SIZES = (
    column("images", "images", "{:,}"),
    column("GB", "gigabytes", "{:.2f}"),
    column("placement", "placement"),
    column("s per epoch", "seconds", "{:.1f}"),
    column("images/s", "images_per_second", "{:,.0f}"),
    column("memory, MiB", "mebibytes", "{:,.0f}"),
)


class PlacementError(UserError):
    """A measurement that failed, or weights that differ."""


def compare(
    model: str, images: np.ndarray, labels: np.ndarray, rounds: int
) -> dict[str, Any]:
    """A row of `TIMES`.

    Raises:
      PlacementError: the weights are not the same at the end.
    """
    trainers, epochs = {}, {}
    for placement in _PLACEMENTS:
        config = plain_runs.make_plain_config(
            model,
            families.BATCH_SIZES[model],
            data_placement=placement,
            validation_fraction=0.0,
        )
        trainer = plain_runs.make_plain_trainer(config, images, labels)
        trainer.compile()
        trainers[placement] = trainer
        epochs[placement] = plain_runs.make_epochs(trainer)
        epochs[placement]()  # warms up
    # As many epochs of both, whatever they take.
    number = max(1, round(_TURN_SECONDS / epochs["device"]()["seconds"]))
    epochs["host"]()
    turns = []
    for i in range(rounds):
        turn = {}
        for placement in _PLACEMENTS:
            times = [epochs[placement]()["seconds"] for _ in range(number)]
            turn[placement] = statistics.mean(times)
        turns.append(turn)
        say(f"{model}: round {i + 1} of {rounds}")
    states = [jax.tree.leaves(x.fetch_state()) for x in trainers.values()]
    if not all(map(np.array_equal, *states)):
        raise PlacementError(f"{model}: the weights are not the same at the end")
    ratios = [turn["host"] / turn["device"] for turn in turns]
    medians = {x: statistics.median(turn[x] for turn in turns) for x in _PLACEMENTS}
    return {"model": model, **medians, "ratio": timing.median_range(ratios)}


def check_room(num_images: int, folder: Path) -> None:
    """Raises a ConfigError where so many images are more than the disk has room for.

    They are written by a memory map, which a full disk would end by a signal.
    """
    there = next(x for x in (folder, *folder.absolute().parents) if x.exists())
    free, needed = shutil.disk_usage(there).free, num_images * measurement.BYTES
    if needed > free:
        raise ConfigError(
            f"--images={num_images}: {needed / 1e9:.1f} GB, and {folder} has room for "
            f"{free / 1e9:.1f}: give fewer, or another --workdir"
        )


def measure_sizes(sizes: Sequence[int], folder: Path) -> list[dict[str, Any]]:
    """Rows of `SIZES`; files are written to `folder` and removed.

    Raises:
      PlacementError: a measurement failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows, path = [], folder.absolute() / "generated_images.npy"
    for num_images in sizes:
        try:
            measurement.generate(path, num_images)
            for placement in _PLACEMENTS:
                command = [sys.executable, "-m", _MODULE, str(path), placement]
                what = f"{num_images:,} images, {placement}"
                say(what)
                found = machine.measure_in_process(
                    command, what, {**os.environ}, PlacementError
                )
                if found is None:
                    say(f"{what}: left out, they would take too much memory")
                    continue
                rows.append(
                    {
                        "images": num_images,
                        "gigabytes": num_images * measurement.BYTES / 1e9,
                        "placement": placement,
                        "seconds": found["seconds"],
                        "images_per_second": num_images / found["seconds"],
                        "mebibytes": found["bytes"] / 2**20,
                    }
                )
        finally:
            path.unlink(missing_ok=True)
    return rows


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def define_flags() -> None:
    flags.DEFINE_list("models", list(families.BATCH_SIZES), "models to train")
    flags.DEFINE_integer("rounds", 5, "turns of each", lower_bound=1)
    flags.DEFINE_list(
        "images", ["60000", "800000", "8000000"], "numbers of generated images"
    )
    cli.define_settings(("dataset",), dataset="auto")
    study_flags.define_folders("runs/data_placement")


def study() -> None:
    given = flags.FLAGS
    names = study_flags.names("models", given.models, list(families.BATCH_SIZES))
    for text in given.images or [""]:
        if not text.isdecimal() or int(text) < measurement.BATCH_SIZE:
            raise ConfigError(
                f"--images={text}: expected numbers of {measurement.BATCH_SIZE} or more"
            )
    study_flags.check_each_once("images", given.images)
    folders = study_flags.folders(given)
    workdir = study_flags.workdir(given) or Path("runs/data_placement")
    check_room(max(map(int, given.images)), workdir)
    devices.start()
    name = data.prepare(given.dataset, **folders)
    dataset = data.load(name, **folders)
    arrays = dataset.train_images, dataset.train_labels
    title = f"Images on the devices and on the host, {machine.cpu_name()}"
    times = Table(TIMES, [compare(model, *arrays, given.rounds) for model in names])
    sizes = Table(SIZES, measure_sizes([int(x) for x in given.images], workdir))
    page = Page(title)
    page.table(times)
    page.table(sizes)
    content = {
        "cpu": machine.cpu_name(),
        "dataset": name,
        "rows": times.rows,
        "sizes": sizes.rows,
    }
    text = f"{times.to_markdown()}\n{sizes.to_markdown()}"
    files = {"data_placement.json": content, "data_placement.md": text}
    write_all(workdir, files | {"report.html": page})
    print(times.to_text(), sizes.to_text(), sep="\n")


main = cli.make_main(study, "nothing was written")

if __name__ == "__main__":
    define_flags()
    app.run(main)
