"""What is read is data: no file of a run, a data set or an archive is run.

Compiled programs are the exception: JAX takes them from the compilation cache as they
are, so that its folder must be one that only its user can write to. Calls that could
run what they read are refused by ruff's rules S, in pyproject.toml.
"""

import gzip
import importlib.metadata
import importlib.util
import io
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zlib

import jax
import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from small_data import small_files
from test_records import PREDICTIONS

from mnist_jax import data
from mnist_jax.data import DatasetError
from mnist_jax.storage import records
from mnist_jax.storage.checkpoints import CheckpointError, Checkpoints


def named_gzip(content, name):
    """Gzip data whose header carries a file name, which `gzip` would cut."""
    deflate = zlib.compressobj(wbits=-15)
    header = b"\x1f\x8b\x08\x08" + bytes(6) + name.encode() + b"\0"
    trailer = struct.pack("<II", zlib.crc32(content), len(content))
    return header + deflate.compress(content) + deflate.flush() + trailer


@pytest.mark.parametrize("outside", ["../../outside", "{folder}/outside"])
def test_names_inside_the_files_lead_nowhere(tmp_path, monkeypatch, outside):
    outside = outside.format(folder=tmp_path)
    raw_dir, data_dir, here = (
        tmp_path / f"a/b/{name}" for name in ("raw", "data", "c")
    )
    for folder in (raw_dir, data_dir, here):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    for name, content in small_files().items():
        content = named_gzip(gzip.decompress(content), outside)
        (raw_dir / name).write_bytes(content)
    before = {*tmp_path.rglob("*")}
    assert len(data.load("mnist", data_dir, raw_dir).train_labels) == 300
    new = {*tmp_path.rglob("*")} - before
    assert new and all(data_dir in path.parents for path in new)
    assert not any(path.name == "outside" for path in new)


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def bomb(tmp_path):
    """A pickle that makes tmp_path/marker, which was seen to; it must not appear."""
    marker = tmp_path / "marker"
    content = pickle.dumps(Bomb(marker), protocol=2)
    pickle.loads(content).close()
    assert marker.exists()
    marker.unlink()
    yield Bomb(marker)
    assert not marker.exists()


def npz(arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def contents(bomb, arrays):
    """Files that a careless reader of arrays would run: pickles, or with one inside."""
    yield pickle.dumps(bomb, protocol=2)
    yield pickle.dumps(bomb, protocol=0)
    for name in arrays:
        yield npz({**arrays, name: np.array([bomb], object)})


def mined(folder, copy):
    """Yields each file of a folder, alone and then all, to be replaced in a copy."""
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    assert paths
    for chosen in [*([path] for path in paths), paths]:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        yield [copy / path for path in chosen]


def test_a_checkpoint_runs_nothing(bomb, tmp_path):
    params = {"kernel": np.ones((3, 2), np.float32)}
    training = {"step": np.int32(7), "history": {"loss": np.ones(4, np.float32)}}
    identity = {"model": "linear"}
    with Checkpoints(tmp_path / "whole", identity) as checkpoints:
        checkpoints.save(7, params, training)
    blank = jax.tree.map(np.zeros_like, (params, training))
    refused = 0
    for paths in mined(tmp_path / "whole", tmp_path / "run"):
        for path in paths:
            path.write_bytes(pickle.dumps(bomb, protocol=2))
        try:
            with Checkpoints(tmp_path / "run", identity) as checkpoints:
                got = checkpoints.restore(*blank)[:2]
        except CheckpointError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            jax.tree.map(np.testing.assert_array_equal, got, (params, training))
    assert refused >= 3, "the params, the rest and all"


def test_predictions_run_nothing(bomb, tmp_path):
    for content in contents(bomb, PREDICTIONS._asdict()):
        (tmp_path / records.PREDICTIONS).write_bytes(content)
        with pytest.raises(records.RecordsError, match="is damaged"):
            records.read_predictions(tmp_path)


@pytest.fixture
def prepared(tmp_path):
    """The folder of a small prepared data set."""
    raw_dir = tmp_path / "raw"
    raw_dir.mkdir()
    for name, content in small_files().items():
        (raw_dir / name).write_bytes(content)
    data.prepare("kmnist", tmp_path / "whole", raw_dir)
    return tmp_path / "whole"


def test_prepared_data_run_nothing(bomb, prepared, tmp_path):
    expected = data.load("kmnist", prepared)
    refused = 0
    for paths in mined(prepared, tmp_path / "data"):
        for path in paths:
            path.write_bytes(pickle.dumps(bomb, protocol=2))
        try:
            got = data.load("kmnist", tmp_path / "data")
        except DatasetError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            for ours, theirs in zip(got, expected, strict=True):
                np.testing.assert_array_equal(ours, theirs)
    assert refused >= 3, "the images, their form and all"


@pytest.mark.parametrize("name", ["pythonClassName", "python_class_name", "type"])
def test_prepared_data_name_no_module_to_import(prepared, tmp_path, monkeypatch, name):
    (tmp_path / "mine.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.util.find_spec("mine")
    [path] = prepared.rglob("features.json")
    path.write_text(f'{{"{name}": "mine.Feature", "content": {{}}}}')
    with pytest.raises(DatasetError, match="features.json names 'mine.Feature'"):
        data.load("kmnist", prepared)
    assert "mine" not in sys.modules


def requirement_tree(root):
    """Names of a package and of what it needs, with all its extras."""
    extras = importlib.metadata.metadata(root).get_all("Provides-Extra", ())
    todo, seen = [(canonicalize_name(root), extra) for extra in ("", *extras)], set()
    while todo:
        name, extra = part = todo.pop()
        if part in seen:
            continue
        seen.add(part)
        try:
            texts = importlib.metadata.requires(name) or ()
        except importlib.metadata.PackageNotFoundError:
            continue  # of an extra that is left out; of others `pip check` tells
        for needed in map(Requirement, texts):
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                dependency = canonicalize_name(needed.name)
                todo += [(dependency, other) for other in ("", *needed.extras)]
    return {name for name, _ in seen}


def test_the_installed_packages_fit_together():
    """Those that the package requires: what else a person has installed may not."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("pip is not installed")
    try:
        ours = requirement_tree("mnist_jax")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("mnist_jax is not installed")
    assert {"mnist-jax", "jax", "numpy", "pytest"} <= ours
    done = subprocess.run(
        [sys.executable, "-m", "pip", "check"],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    # 1: there are complaints, one a line, which begins with the name of the package.
    assert done.returncode in (0, 1) and done.stdout, done.stdout + done.stderr
    if done.returncode == 1:
        complaints = [
            line
            for line in done.stdout.splitlines()
            if canonicalize_name(line.split()[0]) in ours
        ]
        assert not complaints, done.stdout
