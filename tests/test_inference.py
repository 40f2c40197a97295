"""The study of inference, without the other frameworks."""

import json

import numpy as np
import pytest

from experiments.speed.frameworks import processes, protocol
from experiments.speed.frameworks.report import check_params
from experiments.speed.inference_parts import measurement, report


def said(num_params=7850, redundant_params=0):
    """What a worker says of itself when it is ready."""
    return {"num_params": num_params, "redundant_params": redundant_params}


def turn(latencies, rate, **more):
    return {"latencies": latencies, "images_per_second": rate, **more}


def test_percentiles_are_over_the_calls_of_all_rounds():
    rounds = [
        {
            "mnist_jax": turn([1e-6] * 98, 4000.0, test_set_per_second=10.0),
            "torch": turn([3e-6] * 100, 1000.0),
        },
        {
            "mnist_jax": turn([5e-6, 9e-6], 6000.0, test_set_per_second=30.0),
            "torch": turn([5e-6] * 300, 3000.0),
        },
    ]
    ready = {"mnist_jax": said(), "torch": said(7978, 128)}
    row = report.summarize("linear", ready, rounds)
    ours, torch = row["frameworks"]["mnist_jax"], row["frameworks"]["torch"]
    # Of 100 calls the 99th and the 100th are 5 and 9 µs; NumPy's 99% is 1% between.
    assert (ours["p50"], ours["p99"]) == pytest.approx((1.0, 5.04))
    assert torch["p50_of_rounds"] == pytest.approx([3.0, 5.0])
    assert torch["images_per_second"]["median"] == 2000.0
    assert row["test_set_per_second"]["median"] == 20.0
    head, _, first = report.latency_table([row]).to_markdown().splitlines()
    assert head == "| model | parameters | mnist_jax, µs | PyTorch, µs |"
    assert first == "| linear | 7,850 | 1 (5) | 5 (5) |"


def test_different_models_are_refused():
    ready = {"mnist_jax": said(100), "torch": said(120, 10)}
    with pytest.raises(processes.BenchmarkError, match="mnist_jax 100, torch 110"):
        check_params("gru", ready)


def test_what_is_no_probability_is_refused():
    images = np.zeros((3, 28, 28, 1), np.uint8)
    task = protocol.Task("torch", "linear", 1, 1, images, np.zeros(3, np.int32))
    with pytest.raises(ValueError, match="do not sum to 1"):
        measurement.benchmark(task, lambda x: np.ones((len(x), 10)), {}, 7850)


@pytest.mark.slow
def test_end_to_end_without_other_frameworks(tmp_path, run_study):
    output, errors = run_study(
        "speed.inference",
        "--dataset=synthetic",
        "--models=linear",
        "--rounds=1",
        "--workdir=out",
        cwd=tmp_path,
    )
    assert "left out: PyTorch: --torch_python is not given" in errors
    assert "linear       7,850" in output
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {
        "inference.json",
        "inference.md",
        "inference_latency.png",
        "inference_throughput.png",
    }
    content = json.loads((tmp_path / "out/inference.json").read_text())
    assert {"cpu", "command", "threads", "versions"} <= set(content)
    (row,) = content["models"]
    ours = row["frameworks"]["mnist_jax"]
    assert row["num_params"] == 7850 and row["calls"] == measurement.CALLS
    assert 0 < ours["p50"] <= ours["p99"]
    assert row["test_set_per_second"]["median"] > 0
