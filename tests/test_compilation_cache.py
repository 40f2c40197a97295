"""The compilation cache: what it keeps, what damage does, and that it is silent."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import mnist_jax
from mnist_jax import compilation_cache

ROOT = Path(__file__).parents[1]
LEVEL = "TF_CPP_MIN_LOG_LEVEL"
TRAIN = ("--model=linear", "--dataset=digits", "--epochs=1", "--overwrite")

# Two programs; prints how many came from the cache, then every bit of the results.
PROGRAMS = """
import sys
from pathlib import Path
from mnist_jax import compilation_cache
compilation_cache.start(Path(sys.argv[1]))
import jax, jax.numpy as jnp
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
hits = []
jax.monitoring.register_event_listener(
    lambda event, **_: hits.append(event) if event.endswith("cache_hits") else None
)
x = jnp.linspace(0.1, 1, 512).reshape(8, 64)
programs = [
    lambda x: jnp.tanh(x @ x.T).sum(),
    lambda x: jax.grad(lambda y: (jnp.sin(y) ** 3).sum())(x).sum(),
]
results = [jax.jit(program)(x).tobytes().hex() for program in programs]
print(len(hits), *results)
"""


def environment(**changes):
    """That of a user: without the tests' own cache and level; None takes out."""
    ours = ("JAX_COMPILATION", "JAX_PERSISTENT", LEVEL)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    kept |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    return kept | {k: v for k, v in changes.items() if v is not None}


def run_python(*arguments, cwd=None, **changes):
    """stdout and stderr of a process of its own."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, done.stderr


def run(root, **changes):
    """(programs taken from the cache, their results) of a process of its own."""
    output, errors = run_python("-c", PROGRAMS, root, **changes)
    assert errors == ""
    hits, *results = output.split()
    return int(hits), results


def programs(root):
    return sorted(root.rglob("*-cache"))


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """(folder, results) of a cache with both programs."""
    root = tmp_path_factory.mktemp("cache")
    hits, results = run(root)
    assert hits == 0 and len(programs(root)) >= 2
    return root, results


def test_a_second_process_compiles_nothing_and_gets_the_same_bits(filled):
    root, results = filled
    assert run(root) == (len(programs(root)), results)


@pytest.fixture
def to_damage(filled, tmp_path):
    """`filled`, which is put back as it was: in a copy JAX does not find the programs.

    The folder that they are in is part of their keys.
    """
    root, _ = filled
    whole = shutil.copytree(root, tmp_path / "whole")
    yield filled
    shutil.rmtree(root)
    shutil.move(whole, root)


def test_damaged_programs_are_compiled_again(to_damage):
    root, results = to_damage
    first, second, *rest = programs(root)
    content = bytearray(first.read_bytes())
    middle = len(content) // 2
    # One bit may leave what a compressed file holds as it is.
    content[middle : middle + 16] = bytes(x ^ 255 for x in content[middle:][:16])
    first.write_bytes(content)
    second.write_bytes(second.read_bytes()[:100])
    hits, again = run_damaged(root)
    assert (hits, again) == (len(rest), results)


def run_damaged(root):
    """As `run`, with JAX's warnings of what it could not read."""
    output, errors = run_python("-c", PROGRAMS, root)
    assert "Traceback" not in errors and "cpu_aot_loader" not in errors
    hits, *results = output.split()
    return int(hits), results


@pytest.mark.parametrize(
    "first, level, is_kept",
    [
        ("", None, True),
        # JAX's own, left by a parent process
        pytest.param("", "1", True, marks=pytest.mark.slow),
        pytest.param("", "0", False, marks=pytest.mark.slow),
        ("import jax", None, False),
    ],
)
def test_nothing_is_told_of_programs_from_the_cache(tmp_path, first, level, is_kept):
    """XLA calls each an error: it is silenced, or where it cannot be, none is kept."""
    for _ in range(2):
        _, errors = run_python("-c", f"{first}\n{PROGRAMS}", tmp_path, **{LEVEL: level})
        assert "cpu_aot_loader" not in errors
    assert bool(programs(tmp_path)) == is_kept


@pytest.mark.slow
def test_nothing_is_told_of_programs_that_training_takes(data_dir, tmp_path):
    for _ in range(2):
        _, errors = run_python(
            ROOT / "launch.py", *TRAIN, f"--workdir={tmp_path / 'run'}",
            cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path), **{LEVEL: "1"},
        )  # fmt: skip
        [line] = errors.splitlines()
        assert line.startswith("epoch 1/1")
    assert programs(tmp_path)


def test_what_a_killed_process_left_is_taken_away(tmp_path, monkeypatch):
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("whole-cache", "whole-atime", "half-cache"):
        (folder / name).write_bytes(b"x" * 8)
    started(monkeypatch, tmp_path)
    assert jax.config.jax_compilation_cache_dir == str(folder)
    assert jax.config.jax_compilation_cache_max_size == compilation_cache.MAX_BYTES
    left = {path.name for path in folder.iterdir()}
    assert left == {"whole-cache", "whole-atime", ".lockfile"}


def started(monkeypatch, root=None):
    """Starts the cache where a user has none; `monkeypatch` undoes what it changes."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    compilation_cache.start(root)


@pytest.fixture(autouse=True)
def same_config():
    names = (
        "jax_compilation_cache_dir",
        "jax_compilation_cache_max_size",
        "jax_persistent_cache_min_compile_time_secs",
    )
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def no_home():
    raise RuntimeError("Could not determine home directory.")


def test_where_none_can_be_kept_there_is_none(tmp_path, monkeypatch):
    before = jax.config.jax_compilation_cache_dir
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    started(monkeypatch, in_the_way)
    monkeypatch.setattr(compilation_cache.Path, "home", no_home)
    started(monkeypatch)
    monkeypatch.setattr(mnist_jax, "XLA_IS_QUIET", False)
    started(monkeypatch, tmp_path / "loud")
    assert not (tmp_path / "loud").exists()
    assert jax.config.jax_compilation_cache_dir == before


def test_the_users_own_cache_is_left_to_jax(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "own"))
    compilation_cache.start(tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_the_least_used_programs_leave_when_it_grows_too_large(tmp_path):
    code = f"""
from mnist_jax import compilation_cache
compilation_cache.MAX_BYTES = 40_000
{PROGRAMS}
for n in range(3, 25):
    jax.jit(lambda x: jnp.sin(x) + n)(jnp.ones(n))
"""
    run_python("-c", code, tmp_path)
    found = programs(tmp_path)
    assert 1 < len(found) < 23
    assert sum(path.stat().st_size for path in found) <= 40_000
