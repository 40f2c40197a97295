"""Where does the time of a training step go?

    python experiments/profile_steps.py --dataset=mnist

Traces a second or so of each model's training, as its preset has it but without
augmentation and dropout, and adds up what XLA's operations took on all devices: matrix
products; the exchange of gradients, with waiting for the other device; moving data
(copies, slices, the stacks of a scan); and the rest, which is arithmetic on elements.
What is left of the devices' time is waiting and the dispatch of operations. Writes
profile.md under --workdir. Takes about a minute on two cores. The trace itself costs
time, most where operations are small.
"""

import gzip
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging

from mnist_jax import models, parallel, records, step
from mnist_jax.config import make_config
from mnist_jax.train.run import epoch_order, prepare

KINDS = {
    "products": r"dot|ynn|conv(?!ert)",
    "exchange": r"all-reduce|psum",
    "moving": r"copy|transpose|.*(slice|broadcast|concatenate)",
}
# Events that only hold others.
CONTAINERS = r"while|cond|call|Thunk|Rendezvous|Wait|\$|.*::|.*\(|end: "


def kind(name: str) -> str | None:
    """One of `KINDS`, or 'elements'; None for an event that is no operation."""
    # XLA names its operations in lower case, with a number after a point.
    if re.match(CONTAINERS, name) or not re.fullmatch(r"[a-z][\w.-]*", name):
        return None
    for kind, pattern in KINDS.items():
        if re.match(pattern, name):
            return kind
    return "elements"


def add_up(events: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Seconds by kind of the events of a trace."""
    total = dict.fromkeys((*KINDS, "elements"), 0.0)
    for event in events:
        if event.get("ph") == "X" and (found := kind(event["name"])):
            total[found] += event["dur"] / 1e6
    return total


def profile(model: str, dataset: str) -> dict[str, float]:
    """Shares of the devices' time by kind, 'seconds' per step and 'devices'."""
    config = make_config(
        model,
        dataset,
        augment="none",
        dropout=0.0 if hasattr(models.MODELS[model], "dropout") else None,
    )
    run = prepare(config)
    data = run.dataset.train_images, run.dataset.train_labels, np.uint32(0)
    history = step.Metrics(*np.zeros((2, run.num_steps), np.float32))
    state, history, data = parallel.replicate((run.state, history, data), run.devices)
    order = epoch_order(run.train_rows, config.batch_size, 0, 0)
    order = parallel.split_order(order, len(run.devices))

    def train(num_steps):
        nonlocal state, history
        began = time.perf_counter()
        state, history = run.chunk(state, history, *data, order, 0, num_steps)
        jax.block_until_ready(history)
        return time.perf_counter() - began

    train(0)
    train(8)
    # The trace keeps a million events at most.
    num_steps = max(2, min(run.num_steps, round(0.4 / (train(8) / 8))))
    seconds = min(train(num_steps) for _ in range(3)) / num_steps
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            traced = train(num_steps)
        [path] = Path(folder).rglob("*.trace.json.gz")
        total = add_up(json.loads(gzip.decompress(path.read_bytes()))["traceEvents"])
    whole = traced * len(run.devices)
    shares = {name: value / whole for name, value in total.items()}
    return {**shares, "seconds": seconds, "devices": len(run.devices)}


def main(argv: list[str]) -> None:
    del argv
    logging.set_verbosity(logging.WARNING)  # as in launch.py
    parallel.start()
    names = (*KINDS, "elements")
    lines = [
        f"| model | devices | ms per step | {' | '.join(names)} | waiting, dispatch |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for model in flags.FLAGS.models:
        found = profile(model, flags.FLAGS.dataset)
        rest = 1 - sum(found[name] for name in names)
        cells = [f"{found[name]:.0%}" for name in names] + [f"{rest:.0%}"]
        lines.append(
            f"| {model} | {found['devices']} | {1e3 * found['seconds']:.2f} "
            f"| {' | '.join(cells)} |"
        )
        print(lines[-1], file=sys.stderr, flush=True)
    table = "\n".join(lines) + "\n"
    path = Path(flags.FLAGS.workdir) / "profile.md"
    records.write_atomically(path, table.encode())
    print(table)


if __name__ == "__main__":
    flags.DEFINE_list("models", list(models.MODELS), "models to profile")
    flags.DEFINE_string("dataset", "mnist", "a prepared data set")
    flags.DEFINE_string("workdir", "runs/profile", "where to write")
    app.run(main)
