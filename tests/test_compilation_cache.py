"""The compilation cache: what it keeps, and what it makes of damage."""

import os
import subprocess
import sys

import jax
import pytest

from mnist_jax import compilation_cache

# Three programs; prints how many came from the cache, then every bit of the results.
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
    lambda x: jnp.tanh(x @ x.T).sum(), lambda x: jnp.exp(x).prod(1),
    lambda x: jax.grad(lambda y: (jnp.sin(y) ** 3).sum())(x).sum(),
]
results = [jax.jit(program)(x).tobytes().hex() for program in programs]
print(len(hits), *results)
"""


def run(root, **environment):
    """(programs taken from the cache, their results) of a process of its own."""
    # The tests' own cache, and the level of messages that JAX set when it came first.
    ours = ("JAX_", "TF_CPP_MIN_LOG_LEVEL")
    environ = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAMS, str(root)],
        env={**environ, "JAX_PLATFORMS": "cpu", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    hits, *results = done.stdout.split()
    return int(hits), results


def programs(root):
    return sorted(path for path in root.rglob("*-cache"))


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    root = tmp_path_factory.mktemp("cache")
    hits, results = run(root)
    assert hits == 0 and len(programs(root)) >= 3
    return root, results


def test_a_second_process_compiles_nothing_and_gets_the_same_bits(filled):
    root, results = filled
    hits, again = run(root)
    assert hits == len(programs(root))
    assert again == results


def test_damaged_programs_are_compiled_again(filled):
    root, results = filled
    first, second, third, *rest = programs(root)
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    first.write_bytes(content)
    second.write_bytes(second.read_bytes()[:100])
    third.write_bytes(b"")
    assert run(root) == (len(rest), results)
    assert run(root) == (len(rest) + 3, results), "the cache has mended itself"


def test_a_program_without_its_checksum_is_not_trusted(filled):
    root, results = filled
    sums = list(root.rglob("*.sha256"))
    for path in sums:
        path.unlink()
    assert run(root) == (0, results)
    assert all(path.exists() for path in sums), "sealed again"


def test_a_folder_that_cannot_be_made_means_no_cache(filled, tmp_path):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    assert run(in_the_way) == (0, filled[1])


def test_a_damaged_checksum_and_a_missing_home_stop_nothing(tmp_path, monkeypatch):
    program, checksum = tmp_path / "a-cache", tmp_path / "a-cache.sha256"
    program.write_bytes(b"x")
    checksum.write_bytes(b"\xff\xfe")  # no text
    compilation_cache._clean(tmp_path)
    assert not program.exists() and not checksum.exists()

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(compilation_cache.Path, "home", no_home)
    before = jax.config.jax_compilation_cache_dir
    compilation_cache.start()
    assert jax.config.jax_compilation_cache_dir == before


def test_the_users_own_cache_is_left_to_jax(filled, tmp_path):
    own = tmp_path / "own"
    assert run(tmp_path / "ours", JAX_COMPILATION_CACHE_DIR=str(own))[1] == filled[1]
    assert not (tmp_path / "ours").exists()


def test_the_oldest_programs_leave_when_it_grows_too_large(tmp_path, monkeypatch):
    for age, name in enumerate(["new", "middle", "old"]):
        path = tmp_path / f"{name}-cache"
        path.write_bytes(b"x" * 100)
        checksum = compilation_cache._checksum(path)
        path.with_name(path.name + ".sha256").write_bytes(checksum)
        os.utime(path, (1e9 - age, 1e9 - age))
    monkeypatch.setattr(compilation_cache, "MAX_BYTES", 250)
    compilation_cache._clean(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {
        "new-cache", "new-cache.sha256", "middle-cache", "middle-cache.sha256"
    }  # fmt: skip
