"""The benchmark of the frameworks, without the other frameworks."""

import ast
import json
import os
import sys
from pathlib import Path

import pytest

import mnist_jax
from experiments.speed import timing
from experiments.speed.frameworks import families, processes, registry, report

FRAMEWORKS = Path(registry.__file__).parent


def said(num_params=7850, redundant_params=0):
    """What a worker says of itself when it is ready."""
    return {
        "num_params": num_params,
        "redundant_params": redundant_params,
        "warm_up_seconds": 1.5,
    }


def measured(ours, torch, torch_loader, keras, gflops):
    """One round."""
    seconds = dict(mnist_jax=ours, torch=torch, torch_loader=torch_loader, keras=keras)
    turns = {name: {"seconds": x, "loss": 0.25} for name, x in seconds.items()}
    return {**turns, "matmul": {"gflops": gflops}}


READY = {
    "mnist_jax": said(),
    "torch": said(7978, 128),
    "torch_loader": said(7978, 128),
    "keras": said(),
    "matmul": said(None),
}


# By hand: multiply-adds x 2 x matmuls of the layer (forward and backward).
@pytest.mark.parametrize(
    "model, flops",
    [
        ("linear", 7840 * 2 * 2),
        ("mlp", 100352 * 2 * 2 + 1280 * 2 * 3),
        ("cnn", 194688 * 2 * 2 + 2230272 * 2 * 3 + 16000 * 2 * 3),
        ("rnn", 28 * (3584 * 2 * 2 + 16384 * 2 * 3) + 1280 * 2 * 3),
        ("lstm", 28 * (14336 * 2 * 2 + 65536 * 2 * 3) + 1280 * 2 * 3),
        ("gru", 28 * (10752 * 2 * 2 + 49152 * 2 * 3) + 1280 * 2 * 3),
    ],
)
def test_flops_of_an_image(model, flops):
    assert families.flops_per_image(model) == flops


def test_a_turn_is_as_many_epochs_as_it_holds():
    seconds = iter([0.8, 0.4, 0.9, 0.1])
    turn = timing.take_turn(lambda: {"seconds": next(seconds), "loss": 0.5}, 2.0)
    assert turn == {"seconds": pytest.approx(0.7), "loss": 0.5}


def test_ratios_are_taken_within_rounds():
    rounds = [
        measured(ours=1.0, torch=3.0, torch_loader=4.0, keras=2.0, gflops=1.0),
        measured(ours=2.0, torch=6.0, torch_loader=5.0, keras=9.0, gflops=2.0),
        measured(ours=1.0, torch=4.0, torch_loader=8.0, keras=9.0, gflops=1.0),
    ]
    row = report.summarize("linear", 1000, READY, rounds)
    assert row["num_params"] == 7850
    assert row["images_per_epoch"] == 31 * 32
    torch = row["frameworks"]["torch"]
    assert torch["seconds"] == [3.0, 6.0, 4.0]
    assert torch["median_seconds"] == 4.0
    assert torch["images_per_second"] == 248.0
    assert torch["time_over_ours"] == {"median": 3.0, "lowest": 3.0, "highest": 4.0}
    # 2 / 1 by Keras, 5 / 2 by the DataLoader, 4 / 1 by the tensors in memory.
    assert row["speedup"] == {"median": 2.5, "lowest": 2.0, "highest": 4.0}
    # 31,360 FLOPs for each of 992 images in a second of 1e9.
    assert row["utilization"]["highest"] == pytest.approx(0.03110912)
    assert row["utilization"]["lowest"] == pytest.approx(0.00777728)


def test_table_has_one_row_per_model():
    rounds = [measured(ours=1.0, torch=3.0, torch_loader=4.0, keras=2.5, gflops=1.0)]
    row = report.summarize("linear", 1000, READY, rounds)
    head, _, first = report.make_table([row]).to_markdown().splitlines()
    assert "| fastest other | its time, s | speedup" in head
    assert first == (
        "| linear | 32 | 7,850 | 1.00 | Keras | 2.50 | 2.50 (2.50 to 2.50) | 3% |"
    )


def test_table_of_times_leaves_a_cell_empty_where_a_framework_has_no_such_model():
    rounds = [measured(ours=1.0, torch=3.0, torch_loader=4.0, keras=2.5, gflops=1.0)]
    linear = report.summarize("linear", 1000, READY, rounds)
    ready = {name: one for name, one in READY.items() if name != "keras"}
    mlp = report.summarize("mlp", 1000, ready, rounds)
    lines = report.make_times_table([linear, mlp]).to_markdown().splitlines()
    assert lines[0] == "| seconds | linear | mlp |"
    assert lines[2:] == [
        "| mnist_jax | 1.00 | 1.00 |",
        "| PyTorch | 3.00 | 3.00 |",
        "| PyTorch DataLoader | 4.00 | 4.00 |",
        "| Keras | 2.50 |  |",
    ]


def test_speedup_counts_frameworks_of_this_interpreter():
    turns = measured(ours=1.0, torch=3.0, torch_loader=4.0, keras=2.5, gflops=1.0)
    ready = READY | {"flax_scan": said()}
    turns["flax_scan"] = {"seconds": 1.5, "loss": 0.25}
    row = report.summarize("linear", 1000, ready, [turns])
    assert row["fastest"] == "flax_scan" and row["speedup"]["median"] == 1.5


@pytest.mark.parametrize("compiler", [None, "/usr/bin/g++"])
def test_torch_compile_is_left_out_without_a_compiler(compiler, monkeypatch, capsys):
    monkeypatch.setattr(processes, "find_interpreter", lambda *_: "python")
    monkeypatch.setattr(processes.shutil, "which", lambda _: compiler)
    commands = processes.choose_workers({"torch": "python"}, {})
    assert ("torch_compile" in commands) == bool(compiler)
    assert "torch_tuned" in commands and "keras" not in commands
    told = (
        "torch_compile is left out: it needs a C++ compiler" in capsys.readouterr().err
    )
    assert told != bool(compiler)


def test_different_models_are_refused():
    ready = {"mnist_jax": said(100), "torch": said(120, 10), "matmul": said(None)}
    with pytest.raises(processes.BenchmarkError) as caught:
        report.check_params("gru", ready)
    expected = "gru is not the same model everywhere: mnist_jax 100, torch 110"
    assert str(caught.value) == expected


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_foreign_interpreters_need_numpy_and_their_framework_alone():
    speed, package = FRAMEWORKS.parent, Path(mnist_jax.__file__).parent
    own = {
        "experiments": speed.parent / "__init__.py",
        "experiments.speed": speed / "__init__.py",
        "experiments.speed.timing": speed / "timing.py",
        "experiments.speed.frameworks": FRAMEWORKS / "__init__.py",
        "experiments.speed.frameworks.families": FRAMEWORKS / "families.py",
        "experiments.speed.frameworks.protocol": FRAMEWORKS / "protocol.py",
        "mnist_jax": package / "__init__.py",
        "mnist_jax.signals": package / "signals.py",
        "mnist_jax.streams": package / "streams.py",
    }
    known = sys.stdlib_module_names | {"numpy"}
    for path in own.values():
        for name in imports(path):
            assert name in own or name.partition(".")[0] in known, path
    for one in registry.FRAMEWORKS.values():
        if one.interpreter:
            modules = registry.INTERPRETERS[one.interpreter].modules.split(", ")
            # Workers of one interpreter, each of them checked here, may share parts.
            workers = {
                f"experiments.speed.frameworks.{other.worker}"
                for other in registry.FRAMEWORKS.values()
                if other.interpreter == one.interpreter
            }
            for name in imports(FRAMEWORKS / f"{one.worker}.py"):
                assert (
                    name in own
                    or name in workers
                    or name.partition(".")[0] in {*known, *modules}
                )


def start_worker(code, tmp_path):
    command = [sys.executable, "-c", code]
    return processes.Worker("keras of gru", command, dict(os.environ), tmp_path / "log")


def test_what_a_framework_prints_is_not_a_reply(tmp_path):
    code = (
        "import os, sys; print('hello', flush=True); "
        "os.write(int(sys.argv[1].partition('=')[2]), b'{\"ready\": true}\\n'); "
        "input()"
    )
    worker = start_worker(code, tmp_path)
    assert worker.read() == {"ready": True}
    worker.close()


def test_a_worker_that_dies_is_told_in_one_line(tmp_path):
    worker = start_worker("print('first'); raise SystemExit('no memory')", tmp_path)
    with pytest.raises(processes.BenchmarkError) as caught:
        worker.run_epoch()
    worker.close()
    assert str(caught.value).startswith("keras of gru ended with status 1: ")
    assert "no memory" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--torch_python=no/python"], "--torch_python=no/python: No such file"),
        # With -S an interpreter has no site-packages, and so no Keras.
        (["--keras_python={bare}"], "No module named 'keras'"),
        (["--models=gru,vit"], "--models=vit: expected some of linear"),
        (["--models=cnn", "--images=100"], "--images=100: a batch of cnn has 128"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, expected, tmp_path, run_study):
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    given = [x.format(bare=bare) for x in arguments]
    output, errors = run_study(
        "speed.benchmark_frameworks",
        "--dataset=synthetic",
        *given,
        cwd=tmp_path,
        code=1,
    )
    assert output == "" and len(errors.splitlines()) == 1
    assert errors.startswith("error: ") and expected in errors


@pytest.mark.slow
def test_end_to_end_without_other_frameworks(tmp_path, run_study):
    output, errors = run_study(
        "speed.benchmark_frameworks",
        "--dataset=synthetic",
        "--models=linear",
        "--images=256",
        "--rounds=1",
        "--turn_seconds=0",
        "--workdir=out",
        cwd=tmp_path,
    )
    workdir = tmp_path / "out"
    files = {path.name for path in workdir.iterdir()}
    assert files == {"benchmark.json", "benchmark.md", "benchmark.png"}
    content = json.loads((workdir / "benchmark.json").read_text())
    assert {"cpu", "python", "command", "threads"} <= set(content)
    assert (content["dataset"], content["images"]) == ("synthetic", 256)
    assert set(content["versions"]) == {
        *("mnist_jax", "flax", "flax_scan", "sklearn", "matmul")
    }
    (row,) = content["models"]
    assert row["num_params"] == 7850
    assert set(row["frameworks"]) == {"mnist_jax", "flax", "flax_scan", "sklearn"}
    for one in row["frameworks"].values():
        assert one["seconds"][0] > 0 and 1 < one["loss"][0] < 5
    assert row["matmul_gflops"][0] > 0
    assert "| linear | 32 | 7,850 |" in (workdir / "benchmark.md").read_text()
    assert "linear     32       7,850" in output
    assert "linear flax: round 1" in errors
