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
and the images. Compilation alone takes 60 MiB or more, so XLA's own plan for the
intermediate results stands beside it.

Takes about a quarter of an hour on two cores. Writes scaling.json after each point,
and at the end scaling.md and scaling.png, under --workdir. What is in scaling.json is
not measured again, unless it is of other versions, another --seconds or another
processor.

Result:
"""

import ctypes
import importlib.metadata
import io
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from absl import app, flags, logging
from machine import cpu_name

import mnist_jax
from mnist_jax import models, optim, parallel, records, step
from mnist_jax.config import Config, make_config
from mnist_jax.train.loop import CHUNK_SECONDS
from mnist_jax.train.run import epoch_order, make_programs

RECURRENT = ("rnn", "lstm", "gru")
STRETCHES = 3
FLAT = 1.2  # times the least cost per multiplication
NUM_IMAGES = 16384  # four of the largest batches
_ORDER_IMAGES = 4 * NUM_IMAGES  # what one call of the program can train on
_SEED = 0
_GUIDES = {1: "proportional", 2: "quadratic"}


class ScalingError(Exception):
    """The study cannot go on; the message is one line with the reason."""


class Point(NamedTuple):
    """What is trained."""

    model: str
    batch_size: int = 128
    units: int | None = None  # of the hidden layer; None for a model without one
    steps: int | None = None  # T; None for a model that is not recurrent


class Axis(NamedTuple):
    """What changes along one column of the figure."""

    field: str  # of Point
    label: str
    title: str
    values: tuple[int, ...]
    models: tuple[str, ...]
    guides: tuple[int, ...]  # powers of the value that the time may grow as


_DEFAULTS = {
    "linear": Point("linear"),
    "mlp": Point("mlp", units=128),
    "cnn": Point("cnn"),
    **{model: Point(model, units=128, steps=28) for model in RECURRENT},
}
AXES = {
    "batch": Axis(
        "batch_size",
        "images per batch",
        "Batch (128 units, 28 time steps)",
        (32, 64, 128, 256, 512, 1024, 2048, 4096),
        tuple(_DEFAULTS),
        (),
    ),
    "units": Axis(
        "units",
        "units",
        "Units (batch of 128, 28 time steps)",
        (64, 128, 256, 512, 1024),
        ("mlp", *RECURRENT),
        (1, 2),
    ),
    "steps": Axis(
        "steps",
        "time steps",
        "Time steps (batch of 128, 128 units)",
        (28, 56, 112, 196, 392, 784),
        RECURRENT,
        (1,),
    ),
}


class Reader(nn.Module):
    """An image read as a sequence of any length; at 28 steps that of the package.

    Images float32 [B, 28, 28, 1] and no keys -> logits float32 [B, 10].

    Attributes:
      cell: 'rnn', 'lstm' or 'gru'.
      units: H, size of the hidden state.
      steps: T, a divisor of 784.
    """

    cell: str
    units: int
    steps: int

    @nn.compact
    def __call__(self, images: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        pieces = images.reshape(len(images), self.steps, -1)  # [B, T, 784 / T]
        layer = models.RecurrentLayer(self.cell, self.units, last_only=True)
        return models.Dense(models.NUM_CLASSES)(layer(pieces.swapaxes(0, 1)))


def build(point: Point) -> tuple[Config, nn.Module]:
    """Plain settings instead of the model's preset."""
    settings = {
        "mlp": dict(hidden_sizes=(point.units,), dropout=0.0),
        "cnn": dict(dropout=0.0),
    }
    config = make_config(
        point.model,
        "mnist",
        seed=_SEED,
        batch_size=point.batch_size,
        optimizer="adam",
        learning_rate=1e-3,
        schedule="constant",
        weight_decay=0.0,
        clip_norm=0.0,
        augment="none",
        **settings.get(point.model, {}),
    )
    if point.model in RECURRENT:
        return config, Reader(point.model, point.units, point.steps)
    return config, models.build_model(config)


class Trainer:
    """A compiled training program with its state, on images of noise."""

    def __init__(self, point: Point):
        config, model = build(point)
        schedule = optim.make_schedule(config.schedule, config.learning_rate, 1)
        programs = make_programs(config, model, schedule)
        devices = programs.devices
        self.multiplications = programs.work.multiplications
        rng = np.random.default_rng(_SEED)
        images = rng.integers(0, 256, (NUM_IMAGES, 28, 28, 1), np.uint8)
        labels = rng.integers(0, 10, NUM_IMAGES, np.int32)
        rows = np.arange(_ORDER_IMAGES) % NUM_IMAGES
        order = epoch_order(rows, point.batch_size, _SEED, 0)
        self.num_steps = len(order)  # of one call at most
        self.order = parallel.split_order(order, len(devices))
        history = step.Metrics(*np.zeros((2, self.num_steps), np.float32))
        data = (images, labels, np.uint32(_SEED))
        start = parallel.replicate((programs.state, history, data), devices)
        self.state, self.history, self.data = jax.block_until_ready(start)
        self.num_devices, self.batch_size = len(devices), point.batch_size

        start_peak_anew()
        self.bytes_before = resident_bytes()
        began = time.perf_counter()
        # What is compiled here is called later, so that it is compiled once.
        self.program = programs.chunk.lower(*self._arguments(0)).compile()
        self.compile_seconds = time.perf_counter() - began
        # The first step finds out where its memory is.
        self.step_seconds = self._train(1)

    def stretch(self, seconds: float) -> float:
        """Seconds per image, over a stretch of about `seconds`, a step at least."""
        done, spent = 0, 0.0
        # Not to the very end: a last call of few steps would be little but overhead.
        while spent < 0.9 * seconds:
            steps = round(min(CHUNK_SECONDS, seconds - spent) / self.step_seconds)
            steps = min(max(1, steps), self.num_steps)
            spent += self._train(steps)
            done += steps
            self.step_seconds = spent / done
        return self.step_seconds / self.batch_size

    def _train(self, steps: int) -> float:
        """Seconds that so many steps take."""
        began = time.perf_counter()
        self.state, self.history = self.program(*self._arguments(steps))
        jax.block_until_ready(self.history)
        return time.perf_counter() - began

    def _arguments(self, steps: int) -> tuple:
        return self.state, self.history, *self.data, self.order, 0, steps


def measure(point: Point, seconds: float) -> dict[str, Any]:
    """Trains in this process, which has done nothing else.

    Args:
      point: what to train.
      seconds: how long, after compilation.

    Returns:
      The fields of `point`, and:
        seconds_per_image: of training.
        compile_seconds: of the training program, with its tracing.
        num_devices: those that shared each batch.
        memory_bytes: see the top of this file.
        temp_bytes: XLA's own plan for intermediate results, over all devices; None
          where XLA does not tell.
        multiplications: of one image, forward.
    """
    # A program out of the cache is not compiled.
    jax.config.update("jax_enable_compilation_cache", False)
    parallel.start()
    trainer = Trainer(point)
    stretches = [trainer.stretch(seconds / STRETCHES) for _ in range(STRETCHES)]
    memory = trainer.program.memory_analysis()
    return {
        **point._asdict(),
        "seconds_per_image": min(stretches),
        "compile_seconds": trainer.compile_seconds,
        "num_devices": trainer.num_devices,
        "memory_bytes": peak_bytes() - trainer.bytes_before,
        "temp_bytes": memory and memory.temp_size_in_bytes * trainer.num_devices,
        "multiplications": trainer.multiplications,
    }


def start_peak_anew() -> None:
    """Makes Linux forget this process's peak, which compilations came before.

    Elsewhere the peak stays, and a run that needs less shows as too much.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
    if trim:
        trim(0)  # what was left free is tens of MiB, now more, now less
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def peak_bytes() -> int:
    """The largest resident set of this process so far.

    Linux counts that of the process that started it too. That one is this same file,
    but never trains, so it is smaller.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def resident_bytes() -> int:
    """The resident set of this process; where the system does not tell, its peak."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_bytes()
    # The peak is kept less exactly and can lag behind.
    return min(pages * resource.getpagesize(), peak_bytes())


def plan(
    axis: Axis, names: Sequence[str], max_values: int | None = None
) -> list[Point]:
    """The points of one axis, all models at one value before the next value.

    Args:
      axis: one of `AXES`.
      names: models; those that the axis does not have are left out.
      max_values: how many values, the smallest first; None for all.
    """
    return [
        _DEFAULTS[model]._replace(**{axis.field: value})
        for value in axis.values[:max_values]
        for model in names
        if model in axis.models
    ]


def measure_apart(point: Point, seconds: float) -> dict[str, Any]:
    """`measure` in a process of its own.

    Raises:
      ScalingError: it failed.
    """
    command = [sys.executable, __file__, f"--point={json.dumps(point)}"]
    done = subprocess.run(
        [*command, f"--seconds={seconds}"],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise ScalingError(
            f"{describe(point)} ended with status {done.returncode}: {said[-1]}"
        )
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
        report(
            f"{number}/{len(missing)} {describe(point)}: "
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
        report(f"{path} is of other versions, seconds or processor: measured anew")
    return points if is_same else {}


def describe(point: Point) -> str:
    """The point in words."""
    text = f"{point.model}, batch {point.batch_size}"
    if point.units is not None:
        text += f", {point.units} units"
    return text if point.steps is None else f"{text}, {point.steps} time steps"


def curve(
    axis: Axis, model: str, points: Sequence[Mapping[str, Any]], key: str
) -> tuple[list[int], list[float]]:
    """What `key` is of `model` along `axis`: the values, and as many numbers."""
    own = [one for one in points if one["model"] == model]
    return [x[axis.field] for x in own], [x[key] for x in own]


def flat_range(values: Sequence[int], costs: Sequence[float]) -> tuple[int, int]:
    """First and last of the values around the cheapest that cost hardly more."""
    first = last = int(np.argmin(costs))
    most = FLAT * costs[first]
    while first > 0 and costs[first - 1] <= most:
        first -= 1
    while last + 1 < len(costs) and costs[last + 1] <= most:
        last += 1
    return values[first], values[last]


def tables(axis: Axis, points: Sequence[Mapping[str, Any]]) -> str:
    """Time and memory along one axis, as Markdown.

    Args:
      axis: one of `AXES`.
      points: what `measure` says of its points.
    """
    times = table(axis, points, "seconds_per_image", 1e6)
    ranges = []
    for model in _models(points):
        values, seconds = curve(axis, model, points, "seconds_per_image")
        _, work = curve(axis, model, points, "multiplications")
        first, last = flat_range(values, np.divide(seconds, work))
        ranges.append(f"{first}" if first == last else f"{first} to {last}")
    times.append(f"| flat | {' | '.join(ranges)} |")
    return "\n".join(
        [
            f"Microseconds per image of training, by {axis.label}; flat is where one "
            f"multiplication costs at most {FLAT - 1:.0%} more than where it is "
            "cheapest:\n",
            *times,
            f"\nMemory of the run in MiB, by {axis.label}:\n",
            *table(axis, points, "memory_bytes", 1 / 2**20),
            f"\nIts intermediate results by XLA's plan, MiB, by {axis.label}:\n",
            *table(axis, points, "temp_bytes", 1 / 2**20),
            "",
        ]
    )


def table(
    axis: Axis, points: Sequence[Mapping[str, Any]], key: str, scale: float
) -> list[str]:
    """Lines of Markdown: a row per value and a column per model."""
    names = _models(points)
    lines = [
        f"| {axis.label} | {' | '.join(names)} |",
        f"| ---: |{' ---: |' * len(names)}",
    ]
    curves = [curve(axis, model, points, key) for model in names]
    for i, value in enumerate(curves[0][0]):
        cells = [_number(numbers[i], scale) for _, numbers in curves]
        lines.append(f"| {value} | {' | '.join(cells)} |")
    return lines


def _models(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """The models of the points, in the order of their first."""
    return list(dict.fromkeys(one["model"] for one in points))


def _number(x: float | None, scale: float) -> str:
    """`x * scale` with three digits or more, without an exponent."""
    if x is None:
        return ""
    x *= scale
    digits = 0 if x >= 100 else 1 if x >= 10 else 2
    return f"{x:,.{digits}f}"


def caption(settings: Mapping[str, Any]) -> str:
    """One line that says where the numbers are from."""
    cores = settings["cores"]
    return (
        f"Training on {cores} core{'s'[: cores > 1]} of {settings['cpu']}, "
        f"jax {settings['versions']['jax']}"
    )


def draw(columns: Mapping[str, Sequence[Mapping[str, Any]]], title: str) -> bytes:
    """Time and memory along each axis as a PNG file.

    Args:
      columns: what `measure` says of the points of each axis, by its name.
      title: of the figure.
    """
    # Not at the top: matplotlib is slow to import.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.6), layout="constrained", facecolor="white")
    panels = figure.subplots(2, len(columns), sharex="col", sharey="row", squeeze=False)
    rows = (
        ("seconds_per_image", 1e6, "microseconds per image"),
        ("memory_bytes", 1 / 2**20, "memory with compilation, MiB"),
    )
    drawn = {}
    for row, (key, scale, label) in zip(panels, rows, strict=True):
        row[0].set_ylabel(label)
        for panel, (name, points) in zip(row, columns.items(), strict=True):
            drawn |= draw_curves(panel, AXES[name], points, key, scale)
    # After all curves, which share their limits.
    for panel, name in zip(panels[0], columns, strict=True):
        panel.set_title(AXES[name].title, fontsize=10)
        for exponent in AXES[name].guides:
            line = draw_guide(panel, exponent)
            drawn[line.get_label()] = line
    handles = [drawn[x] for x in (*_DEFAULTS, *_GUIDES.values()) if x in drawn]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), frameon=False
    )
    figure.suptitle(title, fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def draw_curves(
    panel: Any,
    axis: Axis,
    points: Sequence[Mapping[str, Any]],
    key: str,
    scale: float,
) -> dict[str, Any]:
    """Draws `key * scale` along `axis` into matplotlib's Axes; the line by model."""
    colours = ("#000000", "#E69F00", "#009E73", "#56B4E9", "#D55E00", "#0072B2")
    looks = dict(zip(_DEFAULTS, zip(colours, "ovs^Dp", strict=True), strict=True))
    lines = {}
    for model in _models(points):
        colour, marker = looks[model]
        values, numbers = curve(axis, model, points, key)
        (lines[model],) = panel.plot(
            values,
            np.array(numbers) * scale,
            color=colour,
            marker=marker,
            markersize=4,
            label=model,
        )
    panel.set(xscale="log", yscale="log")
    panel.set_xticks(values, [f"{x}" for x in values], fontsize=8)
    panel.minorticks_off()
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    if panel.get_subplotspec().is_last_row():
        panel.set_xlabel(axis.label)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(alpha=0.25)
    return lines


def draw_guide(panel: Any, exponent: int) -> Any:
    """A line from below the lowest curve that grows as the value to `exponent`."""
    curves = panel.get_lines()
    values = np.array(curves[0].get_xdata(), float)
    # Guides of other exponents start at the same place.
    lowest = 0.7 * min(x.get_ydata()[0] for x in curves if x.get_label() in _DEFAULTS)
    limits = panel.get_ylim()
    (guide,) = panel.plot(
        values,
        lowest * (values / values[0]) ** exponent,
        color="#888888",
        linestyle={1: "--", 2: ":"}[exponent],
        linewidth=1.2,
        zorder=1,
        label=_GUIDES[exponent],
    )
    panel.set_ylim(limits)
    return guide


def write(
    workdir: Path,
    measured: Mapping[Point, Mapping[str, Any]],
    plans: Mapping[str, Sequence[Point]],
    title: str,
) -> str:
    """Writes tables and figure of the plans' points; returns the tables."""
    columns = {name: [measured[x] for x in points] for name, points in plans.items()}
    text = "\n".join(tables(AXES[name], points) for name, points in columns.items())
    text = f"{title}.\n\n{text}"
    records.write_atomically(workdir / "scaling.md", text.encode())
    records.write_atomically(workdir / "scaling.png", draw(columns, title))
    return text


def make_plans(
    axes: Sequence[str], names: Sequence[str], max_values: int | None
) -> dict[str, list[Point]]:
    """The points of each axis, by its name; axes that none of the models has go.

    Raises:
      ScalingError: an axis or a model is unknown, or nothing is left.
    """
    for flag, given, known in (("axes", axes, AXES), ("models", names, _DEFAULTS)):
        for name in given:
            if name not in known:
                expected = ", ".join(known)
                raise ScalingError(f"--{flag}={name}: expected some of {expected}")
    plans = {name: plan(AXES[name], names, max_values) for name in axes}
    plans = {name: points for name, points in plans.items() if points}
    if not plans:
        raise ScalingError(
            f"--models={','.join(names)} --axes={','.join(axes)}: no such model "
            "changes along such an axis; give others"
        )
    return plans


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


def report(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def define_flags() -> None:
    """Only for the program, so that tests can import this beside other studies."""
    flags.DEFINE_list("models", list(_DEFAULTS), "models to train")
    flags.DEFINE_list("axes", list(AXES), "what to change: batch, units, steps")
    flags.DEFINE_float("seconds", 2.0, "of training per point", lower_bound=0.0)
    flags.DEFINE_integer(
        "max_values", None, "values per axis, the smallest (default: all)", 1
    )
    flags.DEFINE_string("workdir", "runs/scaling", "where to write")
    flags.DEFINE_string("point", None, "internal: JSON of the one point to measure")


def measure_here(point: str, seconds: float) -> None:
    """The process of one point; prints what `measure` says of it."""
    try:
        print(json.dumps(measure(Point(*json.loads(point)), seconds)))
    except Exception as error:  # whatever it is, the other process says it in a line
        sys.exit(f"{type(error).__name__}: {records.first_line(error)}")


def main(argv: list[str]) -> None:
    del argv
    logging.set_verbosity(logging.WARNING)  # as in launch.py
    given = flags.FLAGS
    if given.point is not None:
        return measure_here(given.point, given.seconds)
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
        report(f"stopped; what is finished is in {workdir}")
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    define_flags()
    app.run(main)
