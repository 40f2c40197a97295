"""The changes that docs/extending.md shows, applied to a copy of the package."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from forked_launch import XLA_FLAGS
from small_data import idx_bytes

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text()
DIFFS = re.findall(r"```diff\n(.*?)```", PAGE, re.DOTALL)

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="git applies the diffs")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The package and its launcher with all changes of the page."""
    folder = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "mnist_jax", folder / "mnist_jax")
    shutil.copy(ROOT / "launch.py", folder)
    for diff in DIFFS:
        subprocess.run(
            ["git", "apply", "-"], cwd=folder, input=diff, text=True, check=True
        )
    return folder


@pytest.fixture(scope="module")
def launch(copy):
    """(*flags) -> metrics.jsonl's last line and result.json of one short run."""

    def run(name, *arguments):
        workdir = copy / name
        done = subprocess.run(
            [sys.executable, "launch.py", f"--workdir={workdir}", *arguments],
            cwd=copy,
            env={**os.environ, "XLA_FLAGS": XLA_FLAGS},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        lines = (workdir / "metrics.jsonl").read_text().splitlines()
        return json.loads(lines[-1]), json.loads((workdir / "result.json").read_text())

    return run


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """IDX files of 26 classes, images of 24x20: a blank one with a bright block."""
    folder = tmp_path_factory.mktemp("letters")
    rng = np.random.default_rng(0)
    for stem, num in (("train", 520), ("t10k", 130)):
        labels = (np.arange(num) % 26).astype(np.uint8)
        images = rng.integers(0, 40, (num, 24, 20), np.uint8)
        for image, label in zip(images, labels, strict=True):
            top, left = divmod(int(label), 5)
            image[4 * top : 4 * top + 4, 4 * left : 4 * left + 4] = 255
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            (folder / f"{stem}-{kind}-ubyte").write_bytes(idx_bytes(array))
    return folder


def test_each_change_touches_one_file():
    assert len(DIFFS) == 5
    for diff in DIFFS:
        assert len(re.findall(r"^\+\+\+ ", diff, re.MULTILINE)) == 1, diff


def test_model_augmentation_optimizer_and_metric_are_known(launch, copy):
    last, result = launch(
        "digits", "--model=maxout", "--pieces=3", "--dataset=digits", "--epochs=5",
        "--augment=erase", "--optimizer=adagrad", "--learning_rate=1e-2",
    )  # fmt: skip
    assert result["num_params"] == 785 * 128 * 3 + 129 * 10
    assert result["test_accuracy"] > 0.8
    assert 0 < last["validation_calibration_error"] < 1
    assert 0 < result["test_calibration_error"] < 1
    config = json.loads((copy / "digits" / "config.json").read_text())
    assert config["pieces"] == 3


def test_a_setting_of_its_own_has_help_and_checks(copy):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, "launch.py", "--model=maxout", *arguments],
            cwd=copy,
            capture_output=True,
            text=True,
            timeout=300,
        )

    wrong = run("--pieces=65")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("error: --pieces=65: expected a whole number from 1")
    assert "linear maps per hidden unit [maxout]" in " ".join(
        run("--help").stdout.split()
    )


@pytest.mark.slow
def test_data_set_of_another_size_trains_with_26_classes(launch, letters):
    _, result = launch(
        "letters", "--model=gru", "--dataset=letters", f"--raw_dir={letters}",
        "--epochs=12", "--batch_size=26", "--units=32", "--augment=none",
    )  # fmt: skip
    assert len(result["confusion_matrix"]) == 26
    assert result["test_accuracy"] > 0.8
