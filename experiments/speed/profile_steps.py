"""Where does the time of a training step go?

    python -m experiments.speed.profile_steps --dataset=mnist
        --models=linear,mlp,cnn,lenet5,resnet,rnn,lstm,gru

Traces half a second of each model's training on the CPU, as its preset has it but
without augmentation and dropout, and adds up what XLA's operations take of the devices'
time: matmuls; the all-reduce of gradients, with waiting for the other devices; moving
data (copies, slices, the stacks of a scan); and elementwise arithmetic. The rest is
waiting and the dispatch of operations. Operations of one device that run side by side
share its time. The trace itself costs time, most where operations are small.

Writes profile.json and .md under --workdir. Takes a minute on two cores.

Result, on 2 cores of an Intel Xeon: mlp, rnn, lstm and gru spend 54 to 64% of a step
in matmuls, linear, lenet5, cnn and resnet 35 to 47; cnn and resnet about 40% in
elementwise loops. The all-reduce takes 4 to 7% where there are two devices.
"""

import gzip
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import jax
from absl import app

from experiments.common.table import Table, column
from experiments.speed import per_model
from mnist_jax import cli, models, signals, training_setup
from mnist_jax.config import Config, make_config
from mnist_jax.parallel import devices
from mnist_jax.trainer import Trainer

Event = Mapping[str, Any]
_SECONDS = 0.4  # the trace keeps a million events at most
_RESOLUTION = 1e-9  # seconds; of a trace's times

_PATTERNS = {
    "matmuls": r"dot|ynn|conv(?!ert)",
    "all-reduce": r"all-reduce|psum",
    "moving": r"copy|transpose|.*(slice|broadcast|concatenate)",
}
KINDS = (*_PATTERNS, "elementwise")
# Events that only hold others.
_CONTAINERS = r"while|cond|call|Thunk|Rendezvous|Wait|\$|.*::|.*\(|end: "

COLUMNS = (
    column("model", "model"),
    column("devices", "num_devices", "{:d}"),
    column("ms per step", "ms_per_step", "{:.2f}"),
    *(column(kind, kind, "{:.0%}") for kind in KINDS),
    column("waiting, dispatch", "rest", "{:.0%}"),
)


def kind_of(name: str) -> str | None:
    """One of `KINDS`; None for an event that is no operation."""
    # XLA names its operations in lower case, with a number after a point.
    if re.match(_CONTAINERS, name) or not re.fullmatch(r"[a-z][\w.-]*", name):
        return None
    for kind, pattern in _PATTERNS.items():
        if re.match(pattern, name):
            return kind
    return "elementwise"


def operations(events: Iterable[Event]) -> list[tuple[float, float, str]]:
    """(start, end, kind) of the operations of a trace, in seconds.

    What runs inside an operation on the same thread counts as that operation.

    Args:
      events: of Chrome's trace format.
    """
    threads = defaultdict(list)
    for event in events:
        if event.get("ph") == "X" and (kind := kind_of(event["name"])):
            start = event["ts"] / 1e6
            one = start, -(start + event["dur"] / 1e6), kind
            threads[event["pid"], event["tid"]].append(one)
    found = []
    for own in threads.values():
        last_end = 0.0
        for start, negative_end, kind in sorted(own):  # the outer one first
            if start > last_end - _RESOLUTION:
                last_end = -negative_end
                found.append((start, last_end, kind))
    return found


def seconds_by_kind(events: Iterable[Event], num_devices: int) -> dict[str, float]:
    """Seconds of the devices' time that each kind of operation takes.

    XLA runs independent operations of one device on several threads. Where there are
    more at a time than devices, they share the devices' time.
    """
    total, running = dict.fromkeys(KINDS, 0.0), dict.fromkeys(KINDS, 0)
    changes = [
        change
        for start, end, kind in operations(events)
        for change in ((start, 1, kind), (end, -1, kind))
    ]
    before = 0.0
    for now, change, kind in sorted(changes):
        part = min(1.0, num_devices / max(1, sum(running.values())))
        for name, number in running.items():
            total[name] += number * part * (now - before)
        running[kind] += change
        before = now
    return total


def trace(trainer: Trainer, num_steps: int) -> tuple[float, list[Event]]:
    """Traces so many steps: the seconds that they took, and what the trace holds."""
    with signals.temporary_folder() as folder:
        with jax.profiler.trace(folder):
            seconds = trainer.run(0, num_steps)
        [path] = folder.rglob("*.trace.json.gz")
        content = json.loads(gzip.decompress(path.read_bytes()))
    return seconds, content["traceEvents"]


def profile(config: Config) -> dict[str, Any]:
    """A row of the table."""
    trainer = training_setup.prepare(config).trainer
    trainer.compile()
    trainer.run(0, 8)
    num_steps = round(_SECONDS / (trainer.run(0, 8) / 8))
    num_steps = max(2, min(trainer.num_steps, num_steps))
    seconds = min(trainer.run(0, num_steps) for _ in range(3))
    traced, events = trace(trainer, num_steps)
    num_devices = len(trainer.devices)
    by_kind = seconds_by_kind(events, num_devices)
    shares = {kind: x / (traced * num_devices) for kind, x in by_kind.items()}
    return {
        "model": config.model,
        "num_devices": num_devices,
        "ms_per_step": 1e3 * seconds / num_steps,
        **shares,
        "rest": 1 - sum(shares.values()),
    }


def make_profile_config(model: str, dataset: str, **folders: str | None) -> Config:
    """The model's preset without augmentation and dropout."""
    drops = "dropout" in models.default_settings(model)
    own = {"dropout": 0.0} if drops else {}
    return make_config(model, dataset, augment="none", **own, **folders)


def measure(model: str, dataset: str, **folders: str | None) -> dict[str, Any]:
    return profile(make_profile_config(model, dataset, **folders))


def start() -> None:
    jax.config.update("jax_platforms", "cpu")
    devices.start()


def study() -> None:
    per_model.run("profile", measure, lambda rows: Table(COLUMNS, rows), start)


main = cli.make_main(study, "nothing was written")

if __name__ == "__main__":
    per_model.define_flags("profile", "models to profile")
    app.run(main)
