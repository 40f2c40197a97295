"""What `launch.py` prints of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mnist_jax.formats import counted, format_loss
from mnist_jax.storage import records


def print_start(workdir: Path) -> None:
    settings, _, facts = records.read_config(workdir)
    started = f"started from the weights of {settings['init_from']}"
    if facts.new_params:
        new = ", ".join(facts.new_params)
        started += f", but for {new}: new for {len(facts.class_names)} classes"
    print(started)


def print_result(result: Mapping[str, Any], workdir: Path) -> None:
    print(
        f"test accuracy {result['test_accuracy']:.2%}, "
        f"loss {format_loss(result['test_loss'])} "
        f"on the {result['num_test_images']:,} test images of {result['dataset']}\n"
        f"trained {counted(result['epochs'], 'epoch')} "
        f"in {result['train_seconds']:.1f} s, "
        f"compiled in {result['compile_seconds']:.1f} s\n"
        f"records in {workdir}, figures in {workdir / records.FIGURES}"
    )


def print_predictions(
    paths: Sequence[str], probabilities: np.ndarray, names: Sequence[str]
) -> None:
    for path, row in zip(paths, probabilities, strict=True):
        shares = "  ".join(
            f"{name} {share:.3f}" for name, share in zip(names, row, strict=True)
        )
        print(f"{path}: {names[row.argmax()]} ({row.max():.1%})  [{shares}]")
