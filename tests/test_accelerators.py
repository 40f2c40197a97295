"""What compiled programs are counted to do, and the study that compiles for others."""

import functools
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs_of_launch import ROOT, finish, start_python

from experiments.speed.accelerator_parts import (
    compilation,
    compilers,
    hlo,
    ops_check,
    targets,
)
from experiments.speed.frameworks.processes import find_interpreter
from mnist_jax.config import make_config


def compiled(function, *arguments):
    """The program of a loop of `function` over so many steps as its last argument."""

    def steps(number, x, *others):
        return jax.lax.fori_loop(0, number, lambda _, x: function(x, *others), x)

    return hlo.Program(jax.jit(steps).lower(3, *arguments).compile().as_text())


def test_loops_count_as_often_as_they_run():
    def scan(x, w):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, length=7)[0]

    x, w = np.ones((8, 16), np.float32), np.ones((16, 16), np.float32)
    once = compiled(lambda x, w: jnp.tanh(x @ w), x, w).step()
    program = compiled(scan, x, w)
    assert once.flops == 2 * 8 * 16 * 16
    assert program.step().flops == 7 * once.flops
    assert program.step().kernels >= 7 * 2
    assert program.step().all_reduces == 0
    # It reads and writes x and reads w at least.
    assert program.step().bytes >= 7 * 4 * (2 * x.size + w.size)


@pytest.mark.parametrize(
    "settings",
    [
        dict(padding="VALID"),
        dict(padding=((2, 1), (0, 3))),
        dict(padding="SAME", window_strides=(2, 1)),
        dict(padding=((3, 3), (2, 2)), lhs_dilation=(2, 1), rhs_dilation=(1, 2)),
    ],
    ids=["valid", "padded", "strided", "dilated"],
)
def test_convolutions_count_products_of_pixels_alone(settings):
    convolve = functools.partial(
        jax.lax.conv_general_dilated,
        **dict(window_strides=(1, 1)) | settings,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    x, k = np.ones((2, 6, 7, 3), np.float32), np.ones((3, 2, 3, 5), np.float32)
    lowered = jax.jit(convolve).lower(x, k)
    result = lowered.out_info.shape
    window = dict(lhs_dilation=(1, 1), rhs_dilation=(1, 1), window_strides=(1, 1))
    window |= {n: settings[n] for n in window if n in settings}
    padding = settings["padding"]
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(
            x.shape[1:3], k.shape[:2], window["window_strides"], padding
        )

    def joined(pairs):
        return "x".join(map(str, pairs))

    attributes = (
        f"window={{size={joined(k.shape[:2])} "
        f"stride={joined(window['window_strides'])} "
        f"pad={'x'.join(f'{a}_{b}' for a, b in padding)} "
        f"lhs_dilate={joined(window['lhs_dilation'])} "
        f"rhs_dilate={joined(window['rhs_dilation'])}}}, dim_labels=b01f_01io->b01f"
    )
    got = hlo._convolution_flops(attributes, x.shape, k.shape, result)
    # Of ones, the sum of the outputs is the number of products.
    assert got == 2 * float(convolve(x, k).sum())


@pytest.mark.parametrize("num_devices", [1, 2])
def test_the_training_program_has_one_all_reduce_of_all_gradients(num_devices):
    config = make_config("mlp", "digits", batch_size=64, hidden_sizes=(16,))
    lowered, work = compilation.lower(config, jax.devices()[:num_devices])
    counts = hlo.Program(lowered.compile().as_text()).step()
    assert counts.all_reduces == (1 if num_devices > 1 else 0)
    if num_devices > 1:
        # The gradients and the loss and accuracy of the step.
        assert counts.all_reduce_bytes == 4 * (work.num_params + 2)
    # The first layer's inputs need no gradient.
    per_image = 6 * work.macs - 2 * 784 * 16
    assert counts.flops == pytest.approx(per_image * 64 / num_devices, rel=0.02)


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ((), "--tpu_python and --cuda_python are not given: expected the Python"),
        (("--targets=v5e:3x3",), "--targets=v5e:3x3: expected some of v4:2x2x1, v5e:"),
        (("--tpu_python=nowhere",), "--tpu_python=nowhere: No such file"),
        (("--precisions=int8",), "--precisions=int8: expected some of float32,"),
    ],
)
def test_what_cannot_be_compiled_is_refused(tmp_path, run_study, arguments, expected):
    _, errors = run_study(
        "speed.compile_for_accelerators", *arguments, cwd=tmp_path, code=1
    )
    assert expected in errors and errors.count("\n") == 1


# Of a step of 1,024 images in float32: kernels and MB of temporaries.
_BOUNDS = {
    ("h100:8", "cnn"): (90, 12),
    ("h100:1", "cnn"): (70, 60),
    ("h100:1", "gru"): (260, 190),
    ("v5e:2x2", "mlp"): (300, 5),
    ("v5e:2x2", "gru"): (800, 5),
}


@pytest.mark.slow
@pytest.mark.parametrize("target, model", _BOUNDS)
def test_steps_stay_within_bounds(target, model):
    platform = "cuda" if target.startswith("h100") else "tpu"
    python = os.environ.get(f"{platform.upper()}_PYTHON")
    if not python:
        pytest.skip(f"{platform.upper()}_PYTHON names no Python that compiles for it")
    environment = targets.environment()
    python = find_interpreter(f"{platform}_python", python, "mnist_jax", environment)
    row = compilers.measure(python, target, model, "float32", 1024)
    kernels, megabytes = _BOUNDS[target, model]
    assert row["kernels"] <= kernels
    assert row["temporary_bytes"] <= 1e6 * megabytes
    assert row["all_reduces"] == (1 if row["num_devices"] > 1 else 0)
    if model == "cnn":
        calls = " ".join(row["library_calls"])
        for kind in ("Forward", "BackwardFilter", "BackwardInput"):
            assert f"__cudnn$conv{kind}" in calls


def test_an_operation_that_is_wrong_is_found():
    [device] = jax.devices()[:1]
    case = ops_check.make_cases()["dense, float32"]
    assert ops_check.compare(case, device, device)["is_right"]
    scales = iter([np.float32(1.001), np.float32(1)])

    def wrong_at_first(*arrays):
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return case.function(*arrays) * jax.pure_callback(lambda: next(scales), shape)

    got = ops_check.compare(case._replace(function=wrong_at_first), device, device)
    assert not got["is_right"]
    assert got["value_error"] == pytest.approx(1e-3, rel=0.1)
    never = case._replace(function=lambda *x: case.function(*x) * jnp.nan)
    assert not ops_check.compare(never, device, device)["is_right"]


def test_the_check_asks_for_files(tmp_path, run_study, monkeypatch):
    monkeypatch.delenv("MNIST_RAW_DIR", raising=False)
    _, errors = run_study("speed.accelerator_check", cwd=tmp_path, code=1)
    assert "--raw_dir is not given: expected the folder of MNIST's four IDX" in errors
    _, errors = run_study(
        "speed.accelerator_check", f"--raw_dir={tmp_path}", cwd=tmp_path, code=1
    )
    assert errors.count("\n") == 1 and "train-images-idx3-ubyte" in errors


@pytest.mark.slow
def test_the_check_runs_in_a_short_form_without_tfds(tmp_path):
    (tmp_path / "tensorflow_datasets.py").write_text("raise ImportError('not here')")
    arguments = ("--dataset=digits", "--models=linear,gru", "--batch_sizes=128")
    module = ("-m", "experiments.speed.accelerator_check", *arguments)
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    process = start_python(*module, f"--workdir={tmp_path}", **environment)
    [(status, output, errors)] = finish([process], seconds=600)
    assert status == 0, errors
    content = json.loads((tmp_path / "check.json").read_text())
    assert all(row["is_right"] for row in content["ops"] + content["models"])
    assert len(content["ops"]) == len(ops_check.make_cases())
    assert [row["model"] for row in content["speeds"]] == ["linear", "gru"] * 2
    assert not content["left_out"]
    assert output.count("| gru |") == 3
