"""How do the cost per image and the memory grow with batch, units and time steps?

And where does each stop being flat? On the CPU:

    python experiments/scaling.py

One axis changes at a time, from a batch of 128, 128 units and 28 time steps, without
dropout and augmentation. Time steps are those of an image that is read as T pieces of
784 / T pixels. Each point is a process of its own, so that its peak memory is its own,
and the models take turns, so that a noisy minute does not land on one curve. The time
is the best of three stretches: on a shared machine noise only adds. The memory is the
peak of the resident set over what was resident before the training program was
compiled: the program, its compilation and its arrays, without Python, the libraries
and the images; compilation alone takes 60 MiB or more.

Takes about twelve minutes on two cores. Writes scaling.json after each point,
and at the end scaling.md and scaling.png, under --workdir. What is in scaling.json is
not measured again, unless it is of other versions, another --seconds or another
processor.

Result: the figure in the README, on 2 cores of an AMD EPYC. The cost per image is flat
from a batch of 64 or 128 to 4,096, and per multiplication from 128 units to 1,024. It
is in proportion to the time steps to about 112, and beyond them memory bound.
"""

import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from growth import report
from growth.points import AXES, DEFAULTS, Point, ScalingError, make_plans
from machine import cpu_name

import mnist_jax
from mnist_jax import parallel, records

HERE = Path(__file__).parent


def measure_apart(point: Point, seconds: float) -> dict[str, Any]:
    """`measure` in a process of its own.

    Raises:
      ScalingError: it failed.
    """
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    path = os.pathsep.join(paths)
    done = subprocess.run(
        [sys.executable, "-m", "growth.training", json.dumps(point), str(seconds)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise ScalingError(f"{point} ended with status {done.returncode}: {said[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure_all(
    points: Sequence[Point], path: Path, settings: Mapping[str, Any]
) -> dict[Point, dict[str, Any]]:
    """Measures the points that `path` does not hold, and adds them to it one by one.

    Args:
      points: to measure.
      path: of the JSON file.
      settings: what all points of the file share; 'seconds' is one of them.

    Returns:
      What `measure` says of each point of the file.

    Raises:
      ScalingError: a point failed, or the file is damaged.
    """
    measured = read(path, settings)
    missing = [point for point in points if point not in measured]
    for number, point in enumerate(missing, 1):
        one = measured[point] = measure_apart(point, settings["seconds"])
        content = {"settings": settings, "points": list(measured.values())}
        records.write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())
        say(
            f"{number}/{len(missing)} {point}: "
            f"{one['seconds_per_image'] * 1e6:,.1f} us per image, "
            f"{one['memory_bytes'] / 2**20:,.0f} MiB"
        )
    return measured


def read(path: Path, settings: Mapping[str, Any]) -> dict[Point, dict[str, Any]]:
    """The points that `path` holds of these settings.

    Raises:
      ScalingError: the file is damaged.
    """
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text())
        points = {
            Point(*(one[field] for field in Point._fields)): one
            for one in content["points"]
        }
        is_same = content["settings"] == settings
    except (ValueError, KeyError, TypeError) as error:
        raise ScalingError(
            f"{path} is damaged ({records.first_line(error)}): remove it, or give "
            "another --workdir"
        ) from error
    if not is_same:
        say(f"{path} is of other versions, seconds or processor: measured anew")
    return points if is_same else {}


def caption(settings: Mapping[str, Any]) -> str:
    """One line that says where the numbers are from."""
    cores = settings["cores"]
    return (
        f"Training on {cores} core{'s'[: cores > 1]} of {settings['cpu']}, "
        f"jax {settings['versions']['jax']}"
    )


def write(
    workdir: Path,
    measured: Mapping[Point, Mapping[str, Any]],
    plans: Mapping[str, Sequence[Point]],
    title: str,
) -> str:
    """Writes tables and figure of the plans' points; returns the tables."""
    columns = {name: [measured[x] for x in points] for name, points in plans.items()}
    text = "\n".join(
        report.tables(AXES[name], points) for name, points in columns.items()
    )
    text = f"{title}.\n\n{text}"
    records.write_atomically(workdir / "scaling.md", text.encode())
    records.write_atomically(workdir / "scaling.png", report.draw(columns, title))
    return text


def make_settings(seconds: float) -> dict[str, Any]:
    """What decides the numbers, apart from the point."""
    libraries = ("jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "seconds": seconds,
        "cpu": cpu_name(),
        "cores": parallel.count_cores(),
        "versions": {
            "mnist_jax": mnist_jax.__version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in libraries},
        },
    }


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def define_flags() -> None:
    """Only for the program, so that tests can import this beside other studies."""
    flags.DEFINE_list("models", list(DEFAULTS), "models to train")
    flags.DEFINE_list("axes", list(AXES), "what to change: batch, units, steps")
    flags.DEFINE_float("seconds", 2.0, "of training per point", lower_bound=0.0)
    flags.DEFINE_integer(
        "max_values", None, "values per axis, the smallest (default: all)", 1
    )
    flags.DEFINE_string("workdir", "runs/scaling", "where to write")


def main(argv: list[str]) -> None:
    del argv
    logging.set_verbosity(logging.WARNING)  # as in launch.py
    given = flags.FLAGS
    # As SystemExit, so that the process of a point is ended too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    workdir = Path(given.workdir)
    try:
        plans = make_plans(given.axes, given.models, given.max_values)
        # Axes share the point that is in the middle of each.
        points = list(dict.fromkeys(sum(plans.values(), [])))
        settings = make_settings(given.seconds)
        measured = measure_all(points, workdir / "scaling.json", settings)
        print(write(workdir, measured, plans, caption(settings)))
    except (ScalingError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        say(f"stopped; what is finished is in {workdir}")
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    define_flags()
    app.run(main)
