"""How do time per image and memory scale with batch, units and time steps?

And where does each stop being flat? On the CPU:

    python -m experiments.speed.scaling

One axis changes at a time, from a batch of 128, 128 units and 28 time steps, without
dropout and augmentation. T time steps read an image as T pieces of 784 / T pixels. Each
point is a process of its own, so that its peak memory is its own; the models take
turns, so that a noisy minute does not land on one curve. The time is the best of three
stretches: on a shared machine noise only adds. The memory is the peak of the resident
set over what was resident before the training program was compiled: the program, its
compilation and its arrays, without Python, the libraries and the images. Compilation
alone takes 60 MiB or more.

Writes scaling.json after each point, and at the end scaling.md and .png, under
--workdir. Points in scaling.json are not measured again, unless they are of other
versions, another --seconds or another processor. Takes 12 minutes on two cores.

Result, on 2 cores of an AMD EPYC: time per image is flat from a batch of 64 or 128 to
4,096; time per MAC is flat from 128 units to 1,024. Time is proportional to the time
steps to about 112; beyond, it is memory bound.
"""

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

import mnist_jax
from experiments.common import machine, study_flags
from experiments.common.report import write_all
from experiments.speed.scaling_parts import report
from experiments.speed.scaling_parts.points import (
    AXES,
    DEFAULTS,
    Point,
    ScalingError,
    make_plans,
)
from mnist_jax import cli
from mnist_jax.formats import counted
from mnist_jax.parallel import devices
from mnist_jax.storage import records

_MODULE = "experiments.speed.scaling_parts.measurement"


def measure_in_process(point: Point, seconds: float) -> dict[str, Any]:
    """`measure` in a process of its own.

    Raises:
      ScalingError: it failed.
    """
    command = [sys.executable, "-m", _MODULE, json.dumps(point), str(seconds)]
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return machine.measure_in_process(command, point, env, ScalingError)


def measure_all(
    points: Sequence[Point], path: Path, settings: Mapping[str, Any]
) -> dict[Point, dict[str, Any]]:
    """Measures the points that `path` does not hold, and adds them to it one by one.

    Args:
      points: to measure.
      path: of the JSON file.
      settings: what all points of the file share; 'seconds' is one of them.

    Returns:
      What `measure` returned for each point of the file.

    Raises:
      ScalingError: a point failed.
      RecordsError: the file is damaged.
    """
    measured = read(path, settings)
    missing = [point for point in points if point not in measured]
    for number, point in enumerate(missing, 1):
        one = measured[point] = measure_in_process(point, settings["seconds"])
        content = {"settings": settings, "points": list(measured.values())}
        records.write_json(path, content)
        say(
            f"{number}/{len(missing)} {point}: "
            f"{one['seconds_per_image'] * 1e6:,.1f} us per image, "
            f"{one['memory_bytes'] / 2**20:,.0f} MiB"
        )
    return measured


def read(path: Path, settings: Mapping[str, Any]) -> dict[Point, dict[str, Any]]:
    """The points that `path` holds of these settings.

    Raises:
      RecordsError: the file is damaged.
    """
    remedy = "remove it, or give another --workdir"
    content = records.read_json(path, ("settings", "points"), remedy)
    if content is None:
        return {}
    if (content["schema"], content["settings"]) != (records.SCHEMA, settings):
        say(f"{path} is of other versions, seconds or processor: measured anew")
        return {}
    try:
        return {
            Point(*(one[field] for field in Point._fields)): one
            for one in content["points"]
        }
    except (KeyError, TypeError) as error:
        raise records.damaged(path, error, remedy) from error


def caption(settings: Mapping[str, Any]) -> str:
    """One line that says where the numbers are from."""
    cores = settings["cores"]
    return (
        f"Training on {counted(cores, 'core')} of {settings['cpu']}, "
        f"jax {settings['versions']['jax']}"
    )


def make_settings(seconds: float) -> dict[str, Any]:
    """What decides the numbers, apart from the point."""
    libraries = ("jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "seconds": seconds,
        "cpu": machine.cpu_name(),
        "cores": devices.count_cores(),
        "versions": {
            "mnist_jax": mnist_jax.__version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in libraries},
        },
    }


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def define_flags() -> None:
    flags.DEFINE_list("models", list(DEFAULTS), "models to train")
    flags.DEFINE_list("axes", list(AXES), f"what to change: {', '.join(AXES)}")
    flags.DEFINE_float("seconds", 2.0, "of training per point", lower_bound=0.0)
    flags.DEFINE_integer(
        "max_values", None, "values per axis, the smallest (default: all)", 1
    )
    flags.DEFINE_string("workdir", "runs/scaling", "where to write")


def study() -> None:
    given = flags.FLAGS
    workdir = study_flags.workdir(given)
    plans = make_plans(given.axes, given.models, given.max_values)
    # Axes share the point that is in the middle of each.
    points = list(dict.fromkeys(sum(plans.values(), [])))
    settings = make_settings(given.seconds)
    measured = measure_all(points, workdir / "scaling.json", settings)

    title = caption(settings)
    columns = {name: [measured[x] for x in own] for name, own in plans.items()}
    tables = [report.to_markdown(AXES[name], own) for name, own in columns.items()]
    text = "\n".join([f"{title}.\n", *tables])
    figure = report.draw(columns, title)
    write_all(workdir, {"scaling.md": text, "scaling.png": figure})
    print(text)


main = cli.make_main(study)

if __name__ == "__main__":
    define_flags()
    app.run(main)
