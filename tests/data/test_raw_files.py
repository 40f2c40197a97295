"""Raw IDX files: where they come from, and what may be wrong with them."""

import dataclasses
import gzip
import os
import shutil
import struct
import tracemalloc

import numpy as np
import pytest
from small_data import (
    NUM_TRAIN,
    assert_holds,
    assert_small,
    error_of,
    idx_bytes,
    small_arrays,
    small_files,
    write_files,
)

from mnist_jax import data
from mnist_jax.data import DATASETS, Source, idx


def test_another_size_and_number_of_classes_is_one_entry(
    monkeypatch, tmp_path, empty_dir
):
    letters = Source(
        description="",
        homepage="",
        citation="",
        class_names=tuple("abcdefghijklmnopqrstuvwxyz"),
        image_shape=(20, 24, 1),
    )
    with pytest.raises(ValueError, match="base_urls without checksums"):
        dataclasses.replace(letters, base_urls=("https://a.invalid/",))
    monkeypatch.setitem(DATASETS, "letters", letters)
    error = error_of(data.load, "letters", empty_dir)
    assert error.startswith("letters: not prepared yet") and "--raw_dir" in error

    raw_dir = write_files(tmp_path / "raw", small_files())
    error = error_of(data.load, "letters", empty_dir, raw_dir)
    assert "images of 28x28; expected 20x24" in error
    write_files(raw_dir, small_files(0, (20, 24), 27))
    error = error_of(data.load, "letters", empty_dir, raw_dir)
    assert "label 26; expected labels 0 to 25" in error

    write_files(raw_dir, small_files(0, (20, 24), 26))
    data.prepare("letters", empty_dir, raw_dir)
    shutil.rmtree(raw_dir)
    dataset = data.load("letters", empty_dir)
    assert_holds(dataset, small_arrays(0, (20, 24), 26))
    assert dataset.train_images.shape == (NUM_TRAIN, 20, 24, 1)
    assert dataset.train_labels.max() == 25
    assert dataset.class_names == letters.class_names
    assert dataset.provenance.endswith("SHA-256 NOT verified (none is recorded)")


def test_provenance_says_whether_raw_files_are_the_published_ones(
    publish, raw_dir, tmp_path
):
    publish()
    dataset = data.load("mnist", tmp_path / "a", raw_dir)
    assert dataset.provenance == f"raw files in {raw_dir}, SHA-256 verified"

    # Each file in a form of its own, the data the same.
    train = raw_dir / "train-images-idx3-ubyte.gz"
    test = raw_dir / "t10k-images-idx3-ubyte.gz"
    train.write_bytes(gzip.compress(gzip.decompress(train.read_bytes()), mtime=7))
    (raw_dir / "t10k-images.idx3-ubyte").write_bytes(gzip.decompress(test.read_bytes()))
    test.unlink()
    labels = raw_dir / "train-labels-idx1-ubyte.gz"
    labels.rename(raw_dir / "train-labels.idx1-ubyte.gz")
    dataset = data.load("mnist", tmp_path / "b", raw_dir)
    assert_small(dataset)
    expected = (
        "SHA-256 NOT verified (train-images-idx3-ubyte.gz differs, "
        "t10k-images.idx3-ubyte is not gzipped)"
    )
    assert dataset.provenance.endswith(expected)
    # Stored with the data: true of a later load that sees no raw files too.
    assert data.load("mnist", tmp_path / "b").provenance.endswith(expected)
    # The copy prepared from the other forms holds the same data.
    assert_small(data.load("mnist", tmp_path / "a", raw_dir))


def cut(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def regzip(change):
    return lambda content: gzip.compress(change(gzip.decompress(content)))


def shape(*new: int):
    def change(content: bytes) -> bytes:
        return content[:4] + struct.pack(f">{len(new)}I", *new) + content[16:]

    return regzip(change)


def holding(array):
    return lambda content: gzip.compress(idx_bytes(array.astype(np.uint8)))


@pytest.mark.parametrize(
    ("part", "change", "expected"),
    [
        ("train_images", cut, "bad gzip data"),
        ("train_images", regzip(cut), "156794 bytes after the header"),
        ("train_images", lambda c: gzip.decompress(c)[:-1], "235199 bytes"),
        ("train_images", lambda c: c[:-6] + bytes(6), "bad gzip data"),
        ("test_images", lambda c: b"", "empty; expected"),
        ("test_images", lambda c: b"<html>", "begins with 0x3c68746d; expected an IDX"),
        ("test_images", shape(30, 56, 56), "images of 56x56; expected 28x28"),
        ("test_labels", shape(2**30 + 1), "1073741825 bytes announced"),
        ("test_images", shape(119, 28, 28), "more than 93296 bytes after"),
        ("train_images", holding(np.zeros((0, 28, 28))), "no images"),
        ("train_labels", holding(np.zeros(299)), "299 labels; expected 300"),
        ("train_labels", holding(np.full(300, 10)), "label 10; expected labels 0 to 9"),
    ],
)
def test_damaged_raw_file_is_named_in_one_line(
    raw_dir, empty_dir, part, change, expected
):
    path = raw_dir / f"{idx.FILES[part]}.gz"
    path.write_bytes(change(path.read_bytes()))
    error = error_of(data.load, "kmnist", empty_dir, raw_dir)
    assert error.startswith(f"{path}: ")
    assert expected in error
    assert not os.listdir(empty_dir)

    write_files(raw_dir, small_files())
    assert_small(data.load("kmnist", empty_dir, raw_dir), "kmnist")


@pytest.mark.parametrize(
    ("sizes", "blocks", "expected"),
    [
        ((9, 28, 28), 192, "more than 7056 bytes after"),
        ((2**22, 28, 28), 192, "3288334336 bytes announced"),
        ((2**20, 32, 32), 0, "0 bytes after the header; expected"),
    ],
)
def test_memory_is_not_filled_by_what_a_file_announces_or_holds(
    tmp_path, sizes, blocks, expected
):
    """192 blocks: 3 MB of gzip data that hold 3 GiB."""
    path = tmp_path / "images"
    header = struct.pack(">4B3I", 0, 0, 8, 3, *sizes)
    path.write_bytes(gzip.compress(header) + blocks * gzip.compress(bytes(2**24)))
    tracemalloc.start()
    try:
        assert expected in error_of(idx.read_array, path, 3)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**25


@pytest.mark.parametrize("name", ["kmnist", "auto"])
def test_missing_raw_files_are_named(raw_dir, empty_dir, name):
    (raw_dir / "t10k-labels-idx1-ubyte.gz").unlink()
    error = error_of(data.load, name, empty_dir, raw_dir)
    assert error.startswith(f"{raw_dir}: t10k-labels-idx1-ubyte missing")
    shutil.rmtree(raw_dir)
    error = error_of(data.load, name, empty_dir, raw_dir)
    assert error.startswith(f"--raw_dir={raw_dir}: no such folder")
    assert not os.listdir(empty_dir)


def test_raw_dir_of_a_data_set_without_files_is_not_silently_ignored(
    raw_dir, empty_dir, caplog
):
    assert data.load("digits", empty_dir, raw_dir).name == "digits"
    assert f"--raw_dir={raw_dir} is not used" in caplog.text


def test_environment_names_the_raw_files_of_mnist_only(
    monkeypatch, publish, raw_dir, empty_dir
):
    publish()
    publish(name="kmnist")
    monkeypatch.setenv("MNIST_RAW_DIR", str(raw_dir))
    assert error_of(data.load, "kmnist", empty_dir).startswith("kmnist: not prepared")
    assert_small(data.load("auto", empty_dir))


def test_environment_naming_an_empty_folder_leaves_the_download(
    monkeypatch, mirror, publish, empty_dir, tmp_path, caplog
):
    publish(mirror())
    monkeypatch.setenv("MNIST_RAW_DIR", str(tmp_path / "nowhere"))
    assert_small(data.load("auto", empty_dir))
    assert "MNIST_RAW_DIR" in caplog.text


def test_mnist_never_falls_back_and_names_the_three_ways(unreachable, empty_dir):
    error = error_of(data.load, "mnist", empty_dir)
    for way in ("--data_dir", "--raw_dir", "MNIST_RAW_DIR", "network", "no connection"):
        assert way in error
    assert not os.listdir(empty_dir)


def test_auto_falls_back_to_digits_with_a_loud_warning(unreachable, empty_dir, caplog):
    assert data.load("auto", empty_dir).name == "digits"
    for words in ("NOT MNIST", "digits", "no connection", "--raw_dir"):
        assert words in caplog.text


def test_auto_reports_damaged_raw_files_of_the_environment(
    monkeypatch, raw_dir, empty_dir, caplog
):
    monkeypatch.setenv("MNIST_RAW_DIR", str(raw_dir))
    (raw_dir / "t10k-labels-idx1-ubyte.gz").write_bytes(b"")
    assert data.prepare("auto", empty_dir) == "digits"
    assert str(raw_dir / "t10k-labels-idx1-ubyte.gz") in caplog.text


def test_unknown_name_is_refused_with_the_list():
    names = ("auto", "mnist", "fashion_mnist", "kmnist", "digits", "folder")
    assert data.NAMES == names
    error = error_of(data.load, "cifar")
    assert error == f"unknown data set 'cifar'; expected one of {', '.join(data.NAMES)}"
