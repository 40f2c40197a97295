"""How long does a prediction take: of one image, of 1,000, of the whole test set?

    python -m experiments.speed.inference --dataset=mnist
        --torch_python=path/to/python --keras_python=path/to/python

Every model has the shape of its preset and untrained parameters, on which the time
does not depend. A call takes uint8 images in memory to probabilities in memory, by a
program that was compiled before. PyTorch is in inference mode, eager and compiled, with
channels last for the cnn; onnxruntime runs what PyTorch exports; Keras is a
`tf.function`, plain and compiled by XLA. lenet5 and resnet are measured here alone.
Each framework is a process; they take turns, so that a change of the machine's speed
meets all of them. A turn is 500 calls with one image and a second of calls with 1,000.
All test images are scored by the program of `launch.py --mode=evaluate`.

A framework that is not there, or lacks a library or a compiler, is left out and named
in the report. Writes inference.json and .md, inference_latency.png and
inference_throughput.png under --workdir.
"""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from experiments.common import study_flags
from experiments.common.machine import cpu_name
from experiments.common.report import own_command, write_all
from experiments.speed.frameworks import processes
from experiments.speed.frameworks.registry import INTERPRETERS
from experiments.speed.frameworks.report import check_params
from experiments.speed.inference_parts import report
from experiments.speed.inference_parts.registry import COMPARED, FRAMEWORKS, OURS
from experiments.speed.timing import PAUSE
from mnist_jax import cli, data, models, signals
from mnist_jax.parallel import devices

_NUM_SYNTHETIC = 10_000


def choose_workers(
    given: Mapping[str, str | None], env: dict[str, str]
) -> tuple[dict[str, list[str]], list[str]]:
    """The command of each worker, in the order of their turns, and who is left out.

    Args:
      given: interpreter by key; None to leave out.
      env: of the workers.
    """
    commands, left_out = {}, []
    for name, one in FRAMEWORKS.items():
        python = sys.executable if one.interpreter is None else given[one.interpreter]
        if python is None:
            left_out.append(f"{one.name}: --{one.interpreter}_python is not given")
        elif one.needs_compiler and not processes.has_compiler():
            left_out.append(f"{one.name}: there is no C++ compiler in PATH")
        else:
            try:
                if one.interpreter:
                    python = processes.find_interpreter(
                        f"{one.interpreter}_python", python, one.modules, env
                    )
                module = f"experiments.speed.inference_parts.{one.worker}"
                commands[name] = [python, "-m", module]
            except processes.BenchmarkError as error:
                left_out.append(f"{one.name}: {error}")
    return commands, left_out


def measure(
    model: str,
    commands: Mapping[str, list[str]],
    folder: Path,
    threads: int,
    rounds: int,
) -> tuple[dict[str, dict], list[dict[str, dict]]]:
    """Warms all workers up, then lets them take turns.

    Args:
      model: whose preset is measured.
      commands: see `choose_workers`.
      folder: holds data.npz, and takes what the workers print.
      threads: for each framework.
      rounds: turns of each.

    Returns:
      What each worker said when it was ready, and of each round what each measured.

    Raises:
      BenchmarkError: a worker died, or they classify by different models.
    """
    own = commands if model in COMPARED else {OURS: commands[OURS]}
    measured = []
    with processes.warmed_up(own, model, 1, threads, folder) as (workers, ready):
        check_params(model, ready)
        for _ in range(rounds):
            turns = {}
            for name, worker in workers.items():
                time.sleep(PAUSE)
                turns[name] = worker.run_epoch()
            measured.append(turns)
    return ready, measured


def load_images(dataset: str, **folders: str | None) -> np.ndarray:
    """Test images, uint8 [N, 28, 28, 1].

    Raises:
      DatasetError: see `data.load`.
    """
    if dataset == "synthetic":
        rng = np.random.default_rng(0)
        return rng.integers(0, 256, (_NUM_SYNTHETIC, 28, 28, 1), np.uint8)
    return data.load(dataset, **folders).test_images


def define_flags() -> None:
    processes.define_flags()
    flags.DEFINE_list("models", list(models.MODELS), "models to measure")
    study_flags.define_folders("runs/inference")


def study() -> None:
    given = flags.FLAGS
    names = study_flags.names("models", given.models, list(models.MODELS))
    workdir = study_flags.workdir(given) or Path("runs/inference")
    threads = given.threads or devices.count_cores()
    interpreters = {key: given[f"{key}_python"].value for key in INTERPRETERS}
    commands, left_out = choose_workers(interpreters, processes.environment(threads))
    for line in left_out:
        processes.say(f"left out: {line}")
    images = load_images(given.dataset, **study_flags.folders(given))
    content: dict[str, Any] = {
        "dataset": given.dataset,
        "images": len(images),
        "rounds": given.rounds,
        "threads": threads,
        "cpu": cpu_name(),
        "command": own_command(),
        "left_out": left_out,
        "versions": {},
        "models": [],
    }
    with signals.temporary_folder() as folder:
        labels = np.zeros(len(images), np.int32)
        np.savez(folder / "data.npz", images=images, labels=labels)
        for model in names:
            ready, rounds = measure(model, commands, folder, threads, given.rounds)
            content["versions"] |= {x: one["versions"] for x, one in ready.items()}
            content["models"].append(report.summarize(model, ready, rounds))
            files = {
                "inference.json": content,
                "inference.md": report.to_markdown(content),
            }
            write_all(workdir, files | report.draw(content))
    print(report.latency_table(content["models"]).to_text())
    print(report.throughput_table(content["models"]).to_text())


main = cli.make_main(study, "models that are finished are in the workdir")

if __name__ == "__main__":
    define_flags()
    app.run(main)
