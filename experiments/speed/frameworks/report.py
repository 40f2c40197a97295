"""Summary, table and figure of the benchmark."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.common import charts
from experiments.common.table import Table, column
from experiments.speed.frameworks import families
from experiments.speed.frameworks.processes import BenchmarkError
from experiments.speed.frameworks.registry import FRAMEWORKS, MATMUL, OURS
from experiments.speed.timing import MEDIAN_RANGE, median_range
from mnist_jax.formats import counted

Measured = Mapping[str, Mapping[str, Any]]  # of each worker


def check_params(model: str, ready: Measured) -> int:
    """The number of parameters that all frameworks share.

    Raises:
      BenchmarkError: they train models of different sizes.
    """
    numbers = {
        name: one["num_params"] - one["redundant_params"]
        for name, one in ready.items()
        if one["num_params"] is not None
    }
    if len(set(numbers.values())) != 1:
        each = ", ".join(f"{name} {number:,}" for name, number in numbers.items())
        raise BenchmarkError(f"{model} is not the same model everywhere: {each}")
    return next(iter(numbers.values()))


def summarize(
    model: str, num_images: int, ready: Measured, rounds: Sequence[Measured]
) -> dict[str, Any]:
    """What is written about one model.

    Ratios are taken within a round. 'speedup' is that over the fastest of all others in
    that round, 'fastest' the one of them with the lowest median; 'utilization' is the
    model's FLOP/s over the measured matmul rate.

    Args:
      model: its name.
      num_images: of the data set; the incomplete batch is not trained on.
      ready: what each worker said when it was ready.
      rounds: what each worker measured.
    """
    batch_size = families.BATCH_SIZES[model]
    num_images -= num_images % batch_size
    flops = families.flops_per_image(model)
    ours = [one[OURS]["seconds"] for one in rounds]
    rates = [one[MATMUL]["gflops"] for one in rounds]

    def over_ours(seconds):
        return median_range([x / y for x, y in zip(seconds, ours, strict=True)])

    def summarize_framework(name):
        seconds = [one[name]["seconds"] for one in rounds]
        median = statistics.median(seconds)
        return {
            "seconds": seconds,
            "median_seconds": median,
            "images_per_second": num_images / median,
            "time_over_ours": over_ours(seconds),
            "warm_up_seconds": ready[name]["warm_up_seconds"],
            "loss": [one[name]["loss"] for one in rounds],
            "redundant_params": ready[name]["redundant_params"],
        }

    names = [name for name in FRAMEWORKS if name in ready]
    others = {name: summarize_framework(name) for name in names if name != OURS}
    fastest = [min(one[name]["seconds"] for name in others) for one in rounds]
    return {
        "model": model,
        "batch_size": batch_size,
        "num_params": check_params(model, ready),
        "images_per_epoch": num_images,
        "flops_per_image": flops,
        "frameworks": {OURS: summarize_framework(OURS), **others},
        "fastest": min(others, key=lambda name: others[name]["median_seconds"]),
        "speedup": over_ours(fastest),
        "matmul_gflops": rates,
        "utilization": median_range(
            [
                flops * num_images / seconds / (rate * 1e9)
                for seconds, rate in zip(ours, rates, strict=True)
            ]
        ),
    }


def make_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Ours and the fastest of the others; rows of `summarize`."""
    columns = [
        column("model", "model"),
        column("batch", "batch_size", "{:d}"),
        column("parameters", "num_params", "{:,}"),
        column(f"{FRAMEWORKS[OURS].name}, s", "ours", "{:.2f}"),
        column("fastest other", "name"),
        column("its time, s", "its", "{:.2f}"),
        column("speedup (lowest to highest round)", "speedup", MEDIAN_RANGE),
        column("utilization", "utilization", "{0[median]:.0%}"),
    ]

    def cells(row):
        times, fastest = row["frameworks"], row["fastest"]
        return row | {
            "ours": times[OURS]["median_seconds"],
            "name": FRAMEWORKS[fastest].name,
            "its": times[fastest]["median_seconds"],
        }

    return Table(columns, [cells(row) for row in rows])


def make_times_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Median seconds: a line for each framework, a column for each of `rows`."""
    models = [row["model"] for row in rows]
    columns = [column("seconds", "name"), *(column(x, x, "{:.2f}") for x in models)]

    def cells(name):
        times = {row["model"]: row["frameworks"].get(name) for row in rows}
        medians = {x: one and one["median_seconds"] for x, one in times.items()}
        return {"name": FRAMEWORKS[name].name, **medians}

    return Table(columns, [cells(name) for name in measured_names(rows)])


def measured_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The frameworks that trained one of the models at least."""
    return [x for x in FRAMEWORKS if any(x in row["frameworks"] for row in rows)]


def caption(content: Mapping[str, Any]) -> str:
    """One line that says what the numbers are of."""
    rounds, threads = content["rounds"], content["threads"]
    return (
        f"One epoch of {content['images']:,} {content['dataset']} images, median of "
        f"{counted(rounds, 'round')}, {counted(threads, 'thread')} of "
        f"{content['cpu']}"
    )


def to_markdown(content: Mapping[str, Any]) -> str:
    return (
        f"{caption(content)}. Speedup: over the fastest of all others in each round. "
        "Utilization: model FLOP/s over the measured matmul rate; Winograd needs "
        "fewer, so it can pass 100%.\n\n"
        f"{make_table(content['models']).to_markdown()}\n"
        f"{make_times_table(content['models']).to_markdown()}"
    )


def draw(content: Mapping[str, Any]) -> bytes:
    """Images per second of the fastest use of each library, as a PNG file.

    A bar for every framework would be too thin for its number.
    """
    rows = content["models"]
    limits = [
        statistics.median(row["matmul_gflops"]) * 1e9 / row["flops_per_image"]
        for row in rows
    ]
    libraries: dict[str, list[str]] = {}
    for name in measured_names(rows):
        libraries.setdefault(FRAMEWORKS[name].library, []).append(name)

    def fastest(row, names):
        rates = [
            row["frameworks"][name]["images_per_second"]
            for name in names
            if name in row["frameworks"]
        ]
        return max(rates, default=math.nan)

    return charts.bars(
        {
            library: [fastest(row, names) for row in rows]
            for library, names in libraries.items()
        },
        [row["model"] for row in rows],
        "training images per second",
        caption(content),
        limits=("limit by the matmul rate", limits),
    )
