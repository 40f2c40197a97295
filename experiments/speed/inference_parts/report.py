"""Summary, tables and figures of the inference study."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.common import charts
from experiments.common.table import Column, Table, column
from experiments.speed.frameworks.report import Measured, check_params
from experiments.speed.inference_parts.registry import FRAMEWORKS, OURS
from experiments.speed.timing import median_range
from mnist_jax.formats import counted


def summarize(
    model: str, ready: Measured, rounds: Sequence[Measured]
) -> dict[str, Any]:
    """A row: microseconds of one image, and images per second, of each framework.

    Percentiles are over the calls of all rounds; throughput is the median over rounds.
    """

    def of_framework(name):
        latencies = np.concatenate([one[name]["latencies"] for one in rounds]) * 1e6
        rates = [one[name]["images_per_second"] for one in rounds]
        return {
            "p50": float(np.percentile(latencies, 50)),
            "p99": float(np.percentile(latencies, 99)),
            "p50_of_rounds": [
                1e6 * statistics.median(one[name]["latencies"]) for one in rounds
            ],
            "images_per_second": median_range(rates),
        }

    test_set = [one[OURS]["test_set_per_second"] for one in rounds]
    return {
        "model": model,
        "num_params": check_params(model, ready),
        "calls": sum(len(one[OURS]["latencies"]) for one in rounds),
        "frameworks": {name: of_framework(name) for name in ready},
        "test_set_per_second": median_range(test_set),
    }


def latency_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """p50 and p99 of one image; a framework that lacks a model has an empty cell."""
    columns = [column("model", "model"), column("parameters", "num_params", "{:,}")]
    for name in _names(rows):
        columns.append(Column(f"{FRAMEWORKS[name].name}, µs", _latency(name)))
    return Table(columns, rows)


def throughput_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Images per second at the large batch, and of the test set by our own predict."""
    columns = [column("model", "model")]
    for name in _names(rows):
        columns.append(Column(FRAMEWORKS[name].name, _rate(name)))
    columns.append(column("all test images", "test_set_per_second", "{0[median]:,.0f}"))
    return Table(columns, rows)


def _latency(name):
    def text(row):
        one = row["frameworks"].get(name)
        return f"{one['p50']:,.0f} ({one['p99']:,.0f})" if one else ""

    return text


def _rate(name):
    def text(row):
        one = row["frameworks"].get(name)
        return f"{one['images_per_second']['median']:,.0f}" if one else ""

    return text


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [x for x in FRAMEWORKS if any(x in row["frameworks"] for row in rows)]


def to_markdown(content: Mapping[str, Any]) -> str:
    rows = content["models"]
    notes = "".join(f"\n{note}.\n" for note in content["left_out"])
    return (
        f"One image, {_caption(content)}: median (99th percentile) of "
        f"{rows[0]['calls']:,} calls.\n\n{latency_table(rows).to_markdown()}\n"
        f"Images per second in batches of 1,000, and of all {content['images']:,} test "
        "images by mnist_jax's own predict.\n\n"
        f"{throughput_table(rows).to_markdown()}{notes}"
    )


def draw(content: Mapping[str, Any]) -> dict[str, bytes]:
    """PNG files by name, of the models that all frameworks have."""
    names = _names(content["models"])
    rows = [x for x in content["models"] if set(names) == set(x["frameworks"])]
    if not rows:
        return {}

    def bars(value, label):
        series = {
            FRAMEWORKS[name].name: [value(row["frameworks"][name]) for row in rows]
            for name in names
        }
        groups = [row["model"] for row in rows]
        return charts.bars(series, groups, label, f"Inference, {_caption(content)}")

    return {
        "inference_latency.png": bars(lambda x: x["p50"], "µs for one image, median"),
        "inference_throughput.png": bars(
            lambda x: x["images_per_second"]["median"],
            "images per second, batches of 1,000",
        ),
    }


def _caption(content: Mapping[str, Any]) -> str:
    rounds, threads = content["rounds"], content["threads"]
    return (
        f"{counted(rounds, 'round')}, {counted(threads, 'thread')} of {content['cpu']}"
    )
