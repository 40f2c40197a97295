"""The floors of the house, and what no linter says of it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
COSTLY = ("matplotlib", "sklearn", "tensorflow", "tensorflow_datasets", "torch")


def run(*command):
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_imports_point_down():
    """The contracts in pyproject.toml."""
    code = "from importlinter.cli import lint_imports_command as lint; lint()"
    assert "0 broken" in run("-c", code, "--no-cache")


def test_files_stay_short():
    lines = {
        path: len(path.read_text().splitlines())
        for path in [ROOT / "launch.py", *(ROOT / "mnist_jax").rglob("*.py")]
    }
    assert not {path: count for path, count in lines.items() if count > 250}


def test_importing_the_launcher_leaves_costly_libraries_alone():
    code = f"import sys, launch; print([m for m in {COSTLY} if m in sys.modules])"
    assert run("-c", code).strip() == "[]"


def test_figures_of_a_run_are_drawn_without_jax():
    """To import JAX and what is built on it takes longer than to draw."""
    code = (
        "import sys; sys.argv = ['launch.py', '--mode=plot', '--workdir=none']; "
        "import launch; from mnist_jax.plots import figures; "
        "print([m for m in ('jax', 'flax', 'optax', 'orbax') if m in sys.modules])"
    )
    assert run("-c", code).strip() == "[]"
