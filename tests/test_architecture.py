"""The staircase of the README: no import points up."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = [
    {
        "config",
        "compilation_cache",
        "cost",
        "datasets",
        "digests",
        "augment",
        "metrics",
        "records",
        "images",
        "ops",
    },
    {"models", "optim", "plots", "progress", "run_folder", "tensorboard"},
    {"step"},
    {"parallel", "checkpoints"},
    {"train", "predict"},
    {"program"},
]
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}
FILES = sorted((ROOT / "mnist_jax").rglob("*.py"))


def owner(path):
    """The module or folder of the package that a file belongs to."""
    return path.relative_to(ROOT / "mnist_jax").parts[0].removesuffix(".py")


def imported(path):
    """Every absolute name that a file imports, at the top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_module_has_its_floor():
    owners = {owner(path) for path in FILES} - {"__init__"}
    assert owners == set(FLOOR_OF)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    own = owner(path)
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "mnist_jax" or len(parts) < 2 or parts[1] not in FLOOR_OF:
            continue
        if parts[1] != own:
            assert FLOOR_OF[parts[1]] < FLOOR_OF[own], f"{own} imports {parts[1]}"


@pytest.mark.parametrize(
    "library, only",
    [
        ("tensorflow_datasets", {"datasets"}),
        ("matplotlib", {"plots"}),
        ("orbax", {"checkpoints"}),
        ("tensorboardX", {"tensorboard"}),
        ("absl.flags", set()),
        ("tensorflow", set()),
        ("pickle", set()),
    ],
)
def test_a_library_has_one_home(library, only):
    for path in FILES:
        for name in imported(path):
            if name == library or name.startswith(library + "."):
                assert owner(path) in only, f"{path} imports {name}"


@pytest.mark.parametrize("word", ["pmap", "jax.devices", "process_index", "pmean"])
def test_only_parallel_names_devices(word):
    for path in FILES:
        tree = ast.parse(path.read_text())
        code = [ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute)]
        if owner(path) != "parallel":
            assert not any(word in text for text in code), path


def test_files_stay_short():
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 300, path


def test_importing_the_launcher_leaves_costly_libraries_alone():
    code = (
        "import sys, launch; "
        "print([m for m in ('matplotlib', 'sklearn', 'tensorflow_datasets', "
        "'tensorflow', 'torch') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
