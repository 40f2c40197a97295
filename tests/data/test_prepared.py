"""Prepared data sets on disk."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_data import (
    GENEROUS_SECONDS,
    assert_small,
    error_of,
    run_python,
    small_files,
    write_files,
)

from mnist_jax import data


@pytest.fixture
def prepared(publish, raw_dir, empty_dir) -> Path:
    publish()
    data.prepare("mnist", empty_dir, raw_dir)
    return empty_dir / "mnist_jax_idx" / "mnist" / "1.0.0"


def forget_sha256(folder: Path) -> None:
    """What earlier versions wrote."""
    path = folder / "metadata.json"
    provenance = json.loads(path.read_text())["provenance"]
    path.write_text(json.dumps({"provenance": provenance}))
    path = folder / "dataset_info.json"
    path.write_text(path.read_text().replace("mnist_jax.data.", "mnist_jax.datasets."))


@pytest.mark.parametrize("name", ["mnist", "auto"])
@pytest.mark.parametrize("is_old", [False, True])
def test_raw_dir_must_hold_the_prepared_data(
    monkeypatch, prepared, raw_dir, tmp_path, empty_dir, name, is_old
):
    if is_old:
        forget_sha256(prepared)
    assert_small(data.load(name, empty_dir, raw_dir))
    other = write_files(tmp_path / "other", small_files(seed=1))
    error = error_of(data.load, name, empty_dir, other)
    assert error.startswith(f"--raw_dir={other}: ") and str(prepared) in error
    assert "--data_dir" in error and "leave --raw_dir out" in error
    assert_small(data.load(name, tmp_path / "b", other), seed=1)

    # The environment's files stand in for missing data, and demand nothing.
    monkeypatch.setenv("MNIST_RAW_DIR", str(other))
    assert_small(data.load(name, empty_dir))


def test_fast_reading_equals_tfds_own_decoding(prepared, empty_dir):
    import tensorflow_datasets as tfds

    dataset = data.load("mnist", empty_dir)
    builder = tfds.builder_from_directory(prepared)
    for part in ("train", "test"):
        examples = list(builder.as_data_source(part))
        for key in ("image", "label"):
            ours = getattr(dataset, f"{part}_{key}s")
            np.testing.assert_array_equal(ours, [e[key] for e in examples])


SHARD = "mnist_jax_idx-train.array_record-00000-of-00001"


def other_images(folder: Path) -> None:
    """Whole files, of other data."""
    scratch = folder.parent / "other"
    scratch.mkdir()
    raw_dir = write_files(scratch / "raw", small_files(seed=1))
    data.prepare("kmnist", scratch, raw_dir)
    shutil.copy(scratch / "mnist_jax_idx" / "kmnist" / "1.0.0" / SHARD, folder)


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: os.truncate(d / SHARD, (d / SHARD).stat().st_size // 2),
        lambda d: (d / SHARD).unlink(),
        lambda d: (d / SHARD).write_bytes(bytes((d / SHARD).stat().st_size)),
        other_images,
        lambda d: (d / "dataset_info.json").write_text('{"name":'),
        lambda d: (d / "features.json").unlink(),
        lambda d: (d / "metadata.json").unlink(),
        lambda d: (shutil.rmtree(d), d.mkdir()),
    ],
)
def test_damaged_prepared_files_are_named_with_the_remedy(
    prepared, empty_dir, raw_dir, damage
):
    damage(prepared)
    # No other data set takes the place of one that is there but damaged.
    error = error_of(data.load, "auto", empty_dir)
    assert error.startswith(f"{prepared}: ")
    assert "delete this folder" in error

    shutil.rmtree(prepared)
    assert_small(data.load("mnist", empty_dir, raw_dir))


@pytest.mark.parametrize("name", ["digits", "auto"])
def test_data_dir_that_cannot_be_written_is_named(unreachable, tmp_path, name):
    (tmp_path / "file").write_text("in the way")
    error = error_of(data.load, name, tmp_path / "file" / "data")
    assert error.startswith(f"{tmp_path}/file/data: cannot prepare digits there")


FULL_DISK = """
import resource, sys
from mnist_jax import data
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    data.load("kmnist", *sys.argv[1:])
except data.DatasetError as error:
    print(error)
"""


def test_data_that_do_not_fit_on_the_disk_are_one_line(raw_dir, empty_dir):
    process = run_python(FULL_DISK, empty_dir, raw_dir)
    output, errors = process.communicate(timeout=GENEROUS_SECONDS)
    assert output.startswith(f"{empty_dir}: cannot prepare kmnist there ("), errors
    assert output.endswith("choose another --data_dir\n")
    assert not os.listdir(empty_dir)


LOAD_RAW = """
import sys
from mnist_jax import data
print(data.load("kmnist", *sys.argv[1:]).sha256)
"""


def test_two_processes_may_prepare_at_once(raw_dir, empty_dir):
    processes = [run_python(LOAD_RAW, empty_dir, raw_dir) for _ in range(2)]
    outputs = [process.communicate(timeout=GENEROUS_SECONDS) for process in processes]
    dataset = data.load("kmnist", empty_dir)
    assert_small(dataset, "kmnist")
    assert [output for output, _ in outputs] == 2 * [f"{dataset.sha256}\n"], outputs
    assert os.listdir(empty_dir) == ["mnist_jax_idx"]
    assert os.listdir(empty_dir / "mnist_jax_idx" / "kmnist") == ["1.0.0"]
