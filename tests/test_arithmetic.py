"""Whether devices that calculate wrongly are found."""

import os
import re
import subprocess
import sys
import types

import jax
import jaxlib
import numpy as np
import pytest
from runs_of_launch import LAUNCH, ROOT, error_line

from mnist_jax.parallel import arithmetic, devices


@pytest.fixture(autouse=True)
def forget():
    """No check counts as done before."""
    arithmetic._check.cache_clear()
    yield
    arithmetic._check.cache_clear()


def test_these_devices_calculate_right():
    arithmetic.check_arithmetic(jax.devices())


def test_what_is_expected_is_exact():
    sums, matmul = arithmetic.expected()
    # What jaxlib 0.10.2 makes 1,071,645,696: jax-ml/jax#39103.
    assert sums[-1] == 32_768**2 == 1_073_741_824
    assert np.abs(matmul).max() < 2**24 and len(np.unique(matmul)) > 1000


@pytest.mark.parametrize("part, what", [(0, "a sum is"), (1, "1 numbers of a matmul")])
@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize("error", [-0.002, np.nan])
def test_a_single_wrong_number_is_found_and_told(monkeypatch, part, what, place, error):
    """Also NaN, of which no comparison is true."""
    correct = arithmetic.compute

    def compute(*operands):
        found = list(correct(*operands))
        index = np.unravel_index(place % found[part].size, found[part].shape)
        right = found[part][index]
        found[part] = found[part].at[index].add(error * (1 + abs(right)))
        return tuple(found)

    monkeypatch.setattr(arithmetic, "compute", compute)
    with pytest.raises(arithmetic.DeviceError) as caught:
        arithmetic.check_arithmetic(jax.devices()[:2])
    message = str(caught.value)
    assert (
        f"cpu device 0 calculates wrongly with jaxlib {jaxlib.__version__}" in message
    )
    assert what in message and "install another version" in message
    assert "\n" not in message


def test_every_device_is_checked(monkeypatch):
    checked = []
    monkeypatch.setattr(arithmetic, "_check", checked.append)
    devices.choose_devices(3, 96)
    # The virtual devices of a CPU are one.
    assert checked == [tuple(jax.devices()[:1])]
    gpus = [types.SimpleNamespace(platform="gpu", id=i) for i in range(3)]
    arithmetic.check_arithmetic(gpus)
    assert checked[1:] == [tuple(gpus)]


def test_the_same_devices_are_checked_once(monkeypatch):
    arithmetic.check_arithmetic(jax.devices())
    monkeypatch.delattr(arithmetic, "compute")
    arithmetic.check_arithmetic(jax.devices())


@pytest.mark.slow
def test_the_broken_jaxlib_is_refused(tmp_path):
    broken = tmp_path / "broken"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", broken,
         "jax==0.10.2", "jaxlib==0.10.2"],
        check=True,
    )  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": f"{broken}{os.pathsep}{ROOT}"}
    del environment["JAX_COMPILATION_CACHE_DIR"]
    done = subprocess.run(
        [sys.executable, LAUNCH, "--model=linear", "--dataset=digits", "--epochs=1"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    line = error_line(done.stderr)
    # How wrong it is depends on the processor.
    told = r"jaxlib 0\.10\.2: a sum is (\d+\.0), not 1073741824\.0: install another"
    assert re.search(told, line)[1] != "1073741824.0", line
    assert not (tmp_path / "runs").exists()
