"""The lowest versions that setup.py allows work together; needs a package index."""

import os
import runpy
import shutil
import subprocess
import sys
import types
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
SOURCES = ("README.md", "launch.py", "pyproject.toml", "setup.py")
FOLDERS = ("docs", "experiments", "mnist_jax", "tests")
RUN = ("--model=cnn", "--dataset=digits", "--epochs=2", "--workdir=run")
# What leans most on each library, and takes least.
TESTS = (
    "test_checkpoints",
    "test_config",
    "test_export",
    "test_images",
    "test_launch",
    "test_metrics",
    "test_optim",
    "test_plots",
    "test_predict",
    "test_records",
    "test_schemas",
    "test_tensorboard",
    "test_train_step",
    "test_training",
)

pytestmark = pytest.mark.slow


def declared(monkeypatch):
    """The dependencies of setup.py, those of its tests among them."""
    given = {}
    stand_in = types.SimpleNamespace(
        find_packages=lambda **settings: [],
        setup=lambda **settings: given.update(settings),
    )
    monkeypatch.setitem(sys.modules, "setuptools", stand_in)
    runpy.run_path(str(ROOT / "setup.py"))
    texts = given["install_requires"] + given["extras_require"]["test"]
    return [Requirement(text) for text in texts]


def lowest(requirement):
    [version] = [s.version for s in requirement.specifier if s.operator == ">="]
    return f"{requirement.name}=={version}"


@pytest.fixture
def run(tmp_path):
    """(*command) -> stdout and stderr, in a folder with none of the user's files."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "XLA_FLAGS")
    }
    environment |= {
        "TFDS_DATA_DIR": str(tmp_path / "data"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }

    def run(*command, cwd=tmp_path):
        done = subprocess.run(
            list(map(str, command)),
            cwd=cwd,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1800,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run


@pytest.fixture
def source(tmp_path):
    """A copy of the project, to which an installation may add its own files."""
    source = tmp_path / "source"
    source.mkdir()
    for name in SOURCES:
        shutil.copy(ROOT / name, source)
    for name in FOLDERS:
        shutil.copytree(
            ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    return source


def test_the_lowest_versions_allowed_work(run, source, tmp_path, monkeypatch):
    pins = [lowest(requirement) for requirement in declared(monkeypatch)]
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("\n".join(pins) + "\n")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    said = run(
        python, "-m", "pip", "install", "-c", constraints, "-e", f"{source}[test]"
    )
    assert "yanked" not in said, said
    run(python, "-m", "pip", "check")
    installed = run(python, "-m", "pip", "freeze").lower().replace("-", "_")
    for pin in pins:
        name, version = pin.lower().replace("-", "_").split("==")
        assert f"{name}=={version}" in installed, installed

    launch = source / "launch.py"
    assert "test accuracy" in run(python, launch, *RUN)
    assert "was complete before" in run(python, launch, *RUN)
    assert "test accuracy" in run(python, launch, "--mode=evaluate", "--workdir=run")
    tests = [f"tests/{name}.py" for name in TESTS]
    run(python, "-m", "pytest", "-q", *tests, cwd=source)
