"""Summary, table and figure of the benchmark."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.common import charts
from experiments.common.table import Table, column
from experiments.speed.frameworks import families
from experiments.speed.frameworks.processes import BenchmarkError
from experiments.speed.frameworks.registry import (
    FRAMEWORKS,
    INTERPRETERS,
    MATMUL,
    OURS,
)
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

    Ratios are taken within a round. 'speedup' is that over the fastest framework with
    an interpreter of its own, None where there is none; 'utilization' is the model's
    FLOP/s over the measured matmul rate.

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
    others = [name for name in names if FRAMEWORKS[name].interpreter]
    fastest = [min(one[x]["seconds"] for x in others) for one in rounds if others]
    return {
        "model": model,
        "batch_size": batch_size,
        "num_params": check_params(model, ready),
        "images_per_epoch": num_images,
        "flops_per_image": flops,
        "frameworks": {name: summarize_framework(name) for name in names},
        "speedup": over_ours(fastest) if others else None,
        "matmul_gflops": rates,
        "utilization": median_range(
            [
                flops * num_images / seconds / (rate * 1e9)
                for seconds, rate in zip(ours, rates, strict=True)
            ]
        ),
    }


def make_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Of rows of `summarize` that all have the same frameworks."""
    names = list(rows[0]["frameworks"])
    columns = [
        column("model", "model"),
        column("batch", "batch_size", "{:d}"),
        column("parameters", "num_params", "{:,}"),
        *(column(f"{FRAMEWORKS[x].name}, s", x, "{:.2f}") for x in names),
    ]
    given = dict.fromkeys(FRAMEWORKS[name].interpreter for name in names)
    others = [INTERPRETERS[key].library for key in given if key]
    if others:
        over = ("the fastest of " if len(others) > 1 else "") + " and ".join(others)
        head = f"speedup over {over} (lowest to highest round)"
        columns.append(column(head, "speedup", MEDIAN_RANGE))
    columns.append(column("utilization", "utilization", "{0[median]:.0%}"))
    cells = [
        row | {x: row["frameworks"][x]["median_seconds"] for x in names} for row in rows
    ]
    return Table(columns, cells)


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
        f"{caption(content)}; seconds. Utilization: model FLOP/s over the measured "
        "matmul rate; Winograd needs fewer, so it can pass 100%.\n\n"
        f"{make_table(content['models']).to_markdown()}"
    )


def draw(content: Mapping[str, Any]) -> bytes:
    """Images per second of every framework, as a PNG file."""
    rows = content["models"]
    limits = [
        statistics.median(row["matmul_gflops"]) * 1e9 / row["flops_per_image"]
        for row in rows
    ]
    return charts.bars(
        {
            FRAMEWORKS[name].name: [
                row["frameworks"][name]["images_per_second"] for row in rows
            ]
            for name in rows[0]["frameworks"]
        },
        [row["model"] for row in rows],
        "training images per second",
        caption(content),
        limits=("limit by the matmul rate", limits),
    )
