"""How long does one epoch of the same model on the same images take?

In this package, plain Flax, PyTorch and Keras, on the CPU:

    python -m experiments.speed.benchmark_frameworks --dataset=mnist
        --torch_python=path/to/python --keras_python=path/to/python

PyTorch and Keras stay out of this package's environment: each flag names the Python of
an environment that has them; without the flag they are left out. Models, batches, Adam
and its rate are the same everywhere, in float32, without augmentation and dropout.
Flax, PyTorch and Keras are used as their own documentation shows, and tuned: Flax scans
the step over an epoch; PyTorch has fused Adam and channels_last, and once more
torch.compile, which is left out where no C++ compiler is found; Keras takes an epoch as
one execution, by `fit` and by a loop of its own, with XLA for the models that gain by
it. scikit-learn's MLPClassifier trains linear and mlp. See frameworks/registry.py.

Each is a process with its images in memory that has trained one epoch to warm up. They
take turns, so that a change of the machine's speed meets all of them. A turn is one
epoch, or as many as two seconds hold, of which the mean counts: after a pause the first
tenths of a second are slow. Speedup is the time of the fastest of all others over ours
within a round, given as the median over the rounds with the lowest and the highest. The
machine's matmul rate is measured in each round, too.

Writes benchmark.json, .md and .png under --workdir, after each model anew. Takes 45
minutes on two cores. Results: docs/performance.md.
"""

import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from experiments.common import study_flags
from experiments.common.machine import cpu_name
from experiments.common.report import own_command, write_all
from experiments.speed.frameworks import families, processes, report
from experiments.speed.frameworks.processes import BenchmarkError, say
from experiments.speed.frameworks.registry import FRAMEWORKS, INTERPRETERS
from experiments.speed.timing import PAUSE, take_turn
from mnist_jax import cli, data, signals
from mnist_jax.formats import format_loss
from mnist_jax.parallel import devices


def load_data(
    dataset: str, num_images: int, data_dir: str | None, raw_dir: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [N, 28, 28, 1] and int32 [N].

    Raises:
      BenchmarkError: there are fewer images.
      DatasetError: see `data.load`.
    """
    if dataset == "synthetic":
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (num_images, 28, 28, 1), np.uint8)
        return images, rng.integers(0, 10, num_images, np.int32)
    loaded = data.load(dataset, data_dir, raw_dir)
    if num_images > len(loaded.train_images):
        raise BenchmarkError(
            f"--images={num_images}: {loaded.name} has {len(loaded.train_images)}; "
            "give that many or fewer"
        )
    return loaded.train_images[:num_images], loaded.train_labels[:num_images]


def check_images(models: list[str], num_images: int) -> None:
    """Raises BenchmarkError where a model has less than a batch."""
    for model in models:
        if num_images < families.BATCH_SIZES[model]:
            raise BenchmarkError(
                f"--images={num_images}: a batch of {model} has "
                f"{families.BATCH_SIZES[model]}; give that many or more"
            )


def measure(
    model: str,
    commands: Mapping[str, list[str]],
    folder: Path,
    threads: int,
    rounds: int,
    turn_seconds: float,
) -> tuple[dict[str, dict], list[dict[str, dict]]]:
    """Warms all workers up, then lets them take turns.

    Args:
      model: what to train.
      commands: see `processes.choose_workers`.
      folder: holds data.npz, and takes what the workers print.
      threads: for each framework.
      rounds: turns of each.
      turn_seconds: of a turn, at least.

    Returns:
      What each worker said when it was ready, and of each round what each measured.

    Raises:
      BenchmarkError: a worker died, or they train different models.
    """
    own = {
        name: command
        for name, command in commands.items()
        if name not in FRAMEWORKS or model in FRAMEWORKS[name].models
    }
    batch_size, measured = families.BATCH_SIZES[model], []
    started = processes.warmed_up(own, model, batch_size, threads, folder)
    with started as (workers, ready):
        report.check_params(model, ready)
        for number in range(1, rounds + 1):
            turns = {}
            for name, worker in workers.items():
                time.sleep(PAUSE)
                turns[name] = take_turn(worker.run_epoch, turn_seconds)
                say(f"{model} {name}: round {number}, {describe(turns[name])}")
            measured.append(turns)
    return ready, measured


def describe(measured: Mapping[str, Any]) -> str:
    """One measurement in words."""
    if "gflops" in measured:
        return f"{measured['gflops']:.0f} GFLOP/s"
    return f"{measured['seconds']:.3f} s, loss {format_loss(measured['loss'])}"


def define_flags() -> None:
    processes.define_flags()
    flags.DEFINE_list("models", list(families.BATCH_SIZES), "models to train")
    flags.DEFINE_float("turn_seconds", 2.0, "of a turn, at least", lower_bound=0.0)
    flags.DEFINE_integer("images", 60000, "images in an epoch", lower_bound=1)
    study_flags.define_folders("runs/benchmark")


def study() -> None:
    given = flags.FLAGS
    models = study_flags.names("models", given.models, list(families.BATCH_SIZES))
    check_images(models, given.images)
    workdir = study_flags.workdir(given) or Path("runs/benchmark")
    threads = given.threads or devices.count_cores()
    interpreters = {key: given[f"{key}_python"].value for key in INTERPRETERS}
    commands = processes.choose_workers(interpreters, processes.environment(threads))
    images, labels = load_data(
        given.dataset, given.images, given.data_dir, given.raw_dir
    )
    content: dict[str, Any] = {
        "dataset": given.dataset,
        "images": given.images,
        "rounds": given.rounds,
        "threads": threads,
        "cpu": cpu_name(),
        "python": platform.python_version(),
        "command": own_command(),
        "versions": {},
        "models": [],
    }
    with signals.temporary_folder() as folder:
        np.savez(folder / "data.npz", images=images, labels=labels)
        for model in models:
            ready, rounds = measure(
                model, commands, folder, threads, given.rounds, given.turn_seconds
            )
            content["versions"] |= {x: one["versions"] for x, one in ready.items()}
            row = report.summarize(model, len(images), ready, rounds)
            content["models"].append(row)
            files = {
                "benchmark.json": content,
                "benchmark.md": report.to_markdown(content),
                "benchmark.png": report.draw(content),
            }
            write_all(workdir, files)
    print(report.make_table(content["models"]).to_text())
    print(report.make_times_table(content["models"]).to_text())


main = cli.make_main(study, "models that are finished are in the workdir")

if __name__ == "__main__":
    define_flags()
    app.run(main)
