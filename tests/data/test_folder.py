"""A person's own images: a folder with a sub-folder of image files for each class."""

import os
import shutil
import signal

import numpy as np
import pytest
from image_trees import NUMERALS, drawn, write_tree
from PIL import Image
from small_data import GENEROUS_SECONDS, error_of, run_python

from mnist_jax import data, images
from mnist_jax.errors import UserError, UserErrors


@pytest.fixture
def tree(tmp_path):
    """Three classes of five images."""
    return write_tree(tmp_path / "mine")


@pytest.fixture
def load(empty_dir):
    """(tree, *others) -> `data.load` of the folder."""
    return lambda tree, *others: data.load("folder", empty_dir, tree, *others)


def lines_of(function, *arguments):
    """The lines of the UserError that a call raises."""
    with pytest.raises(UserError) as caught:
        function(*arguments)
    error = caught.value
    lines = [str(x) for x in getattr(error, "errors", [error])]
    assert not any("\n" in line for line in lines)
    return lines


def prepared_folders(data_dir):
    return sorted(path.parent.name for path in data_dir.glob("mnist_jax_folder/*/*"))


def test_classes_are_the_sub_folders_and_images_are_brought_to_mnists_form(tree, load):
    (tree / ".git").mkdir()
    (tree / "one" / ".DS_Store").write_bytes(b"\0")
    dataset = load(tree)
    assert dataset.name == "folder"
    assert dataset.class_names == ("one", "two", "zero"), "sorted"
    assert dataset.train_images.shape == (12, 28, 28, 1)
    assert dataset.train_labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert dataset.test_labels.tolist() == [0, 1, 2], "a fifth of each class"
    paths = [tree / name / f"{i:02}.png" for name in ("one", "zero") for i in range(5)]
    expected = {images.read_image(path).tobytes() for path in paths}
    found = dataset.train_images[dataset.train_labels != 1]
    found = {image.tobytes() for image in found}
    assert found < expected and len(found) == 8
    assert dataset.provenance.startswith(f"15 images in {tree}, SHA-256 of names, ")


def test_every_class_is_in_both_parts(tmp_path, load):
    tree = write_tree(tmp_path / "mine", NUMERALS[:2], 2)
    write_tree(tree, NUMERALS[:1], 23)
    dataset = load(tree)
    assert np.bincount(dataset.train_labels).tolist() == [1, 18]
    assert np.bincount(dataset.test_labels).tolist() == [1, 5]


def test_what_is_prepared_is_read_again_without_the_images(
    tree, load, empty_dir, monkeypatch
):
    first = load(tree)
    monkeypatch.setattr(images, "READERS", {})
    assert load(tree).sha256 == first.sha256
    # The same content elsewhere is the same data, and needs no copy of its own.
    other = shutil.copytree(tree, tree.parent / "other")
    assert load(other).provenance == first.provenance
    shutil.rmtree(tree)
    shutil.rmtree(other)
    found = data.load("folder", empty_dir, sha256=first.sha256)
    assert found.class_names == first.class_names
    np.testing.assert_array_equal(found.test_images, first.test_images)
    error = error_of(data.load, "folder", empty_dir, None, None, "0" * 64)
    assert "no images prepared there have the SHA-256 0000" in error


def change_pixel(tree):
    path = tree / "one" / "00.png"
    pixels = np.array(Image.open(path))
    pixels[18, 18] ^= 128
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize(
    "change",
    [
        change_pixel,
        lambda tree: (tree / "one" / "00.png").rename(tree / "one" / "99.png"),
        lambda tree: (tree / "one" / "00.png").unlink(),
        lambda tree: (tree / "one").rename(tree / "nine"),
        lambda tree: write_tree(tree, NUMERALS[:4]),
    ],
)
def test_changed_content_is_other_data(tree, load, empty_dir, change):
    first = load(tree)
    change(tree)
    second = load(tree)
    assert second.sha256 != first.sha256
    assert len(prepared_folders(empty_dir)) == 2
    assert data.load("folder", empty_dir, sha256=first.sha256).class_names == (
        first.class_names
    )
    digest = data.prepared_sha256("folder", empty_dir, tree)
    assert digest == second.sha256


def test_the_names_of_classes_are_part_of_the_data(tree, load):
    first = load(tree)
    (tree / "one").rename(tree / "eins")
    second = load(tree)
    np.testing.assert_array_equal(first.train_images, second.train_images)
    assert second.class_names == ("eins", "two", "zero")
    assert first.sha256 != second.sha256


def test_resized_pictures_are_data_of_their_own(tree, load, empty_dir):
    strokes, resized = load(tree), load(tree, "resize")
    assert strokes.sha256 != resized.sha256
    assert len(prepared_folders(empty_dir)) == 2
    assert load(tree).sha256 == load(tree, "strokes").sha256 == strokes.sha256
    # Dark strokes on light stay that.
    assert resized.train_images.mean() > 128 > strokes.train_images.mean()


def test_resizing_keeps_tones_and_aspect_ratio(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(noise).save(tmp_path / "same.png")
    same = images.resize_image(tmp_path / "same.png")
    np.testing.assert_array_equal(same[..., 0], noise)
    Image.new("RGB", (200, 100), (90, 90, 90)).save(tmp_path / "wide.png")
    wide = images.resize_image(tmp_path / "wide.png")[..., 0]
    assert (wide[7:21] == 90).all() and not wide[:7].any() and not wide[21:].any()
    Image.new("L", (1, 500), 255).save(tmp_path / "thin.png")
    thin = images.resize_image(tmp_path / "thin.png", (20, 24))[..., 0]
    assert thin.shape == (20, 24) and thin.any(0).sum() == 1


def missing(tree):
    shutil.rmtree(tree)


def no_sub_folders(tree):
    missing(tree)
    tree.mkdir()
    (tree / "a.png").write_bytes(b"")


def one_class(tree):
    shutil.rmtree(tree / "one")
    shutil.rmtree(tree / "two")


def many_classes(tree):
    for number in range(98):
        (tree / f"{number}").mkdir()


def empty_classes(tree):
    (tree / "four").mkdir()
    (tree / "five").mkdir()
    (tree / "five" / ".hidden").write_bytes(b"")


def few(tree):
    write_tree(tree, ["zero", "one", "two", "three"], 1)


def bad_files(tree):
    (tree / "one" / "text.png").write_text("one")
    (tree / "two" / "blank.png").write_bytes(b"")
    Image.new("L", (60, 60), 255).save(tree / "two" / "white.png")


def folder_in_class(tree):
    (tree / "one" / "more").mkdir()
    os.mkfifo(tree / "two" / "pipe.png")


def same_file(tree):
    shutil.copy(tree / "one" / "00.png", tree / "zero" / "x.png")


def same_pixels(tree):
    drawn(1, 0).save(tree / "zero" / "x.bmp")


def unprintable(tree):
    (tree / "one").rename(tree / "o\nne")
    (tree / "two").rename(tree / "two ")


@pytest.mark.parametrize(
    "spoil, told",
    [
        (missing, ["--raw_dir={}: no such folder; expected one with a sub-folder"]),
        (no_sub_folders, ["--raw_dir={}: no sub-folders; expected 2 to 100, one for"]),
        (one_class, ["--raw_dir={}: one class alone, 'zero'; expected 2 to 100"]),
        (many_classes, ["--raw_dir={}: 101 sub-folders; expected 2 to 100"]),
        (
            empty_classes,
            ["{}/five: no images; expected 2 or more", "{}/four: no images; expected"],
        ),
        (few, ["{}/three: one image alone; expected 2 or more, for training and test"]),
        (
            bad_files,
            [
                "{}/one/text.png: cannot be read as an image",
                "{}/two/blank.png: the file is empty",
                "{}/two/white.png: no digit found",
            ],
        ),
        (
            folder_in_class,
            ["{}/one/more: no file; expected image", "{}/two/pipe.png: no file; exp"],
        ),
        (same_file, ["{}/zero/x.png: the same file as {}/one/00.png, of another cla"]),
        (
            same_pixels,
            ["{}/zero/x.bmp: the same image, once prepared with --preprocess=strokes"],
        ),
        (
            unprintable,
            ["'{}/o\\nne': no name for a class", "'{}/two ': no name for a class"],
        ),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_a_wrong_tree_is_told_line_by_line_and_not_prepared(
    tree, load, empty_dir, spoil, told
):
    spoil(tree)
    lines = lines_of(load, tree)
    assert [
        line[: len(expected.format(tree, tree))]
        for line, expected in zip(lines, told, strict=True)
    ] == [expected.format(tree, tree) for expected in told]
    assert not os.listdir(empty_dir)


def test_a_hundred_classes_are_not_too_many(tree, load):
    for number in range(97):
        (tree / f"{number:02}").mkdir()
        for i in range(2):
            image = np.zeros((28, 28), np.uint8)
            image[i, 10], image[number // 28 + 2, number % 28] = 255, 255
            Image.fromarray(image).save(tree / f"{number:02}" / f"{i}.png")
    dataset = load(tree, "resize")
    assert len(dataset.class_names) == 100
    assert len(set(dataset.test_labels.tolist())) == 100


def test_files_beside_the_classes_and_images_twice_in_one_are_told(tree, load, caplog):
    (tree / "notes.txt").write_text("mine")
    shutil.copy(tree / "one" / "00.png", tree / "one" / "again.png")
    assert load(tree).class_names == ("one", "two", "zero")
    assert "not used, as it is in no sub-folder: notes.txt" in caplog.text
    assert "copies of another image of their class: 1; one" in caplog.text


def test_files_that_change_while_they_are_read_are_not_prepared(
    tree, load, empty_dir, monkeypatch
):
    def read_and_change(path, shape):
        picture = images.read_image(path, shape)
        change_pixel(tree)
        return picture

    monkeypatch.setitem(images.READERS, "strokes", read_and_change)
    assert "were changed while they were read" in error_of(load, tree)
    assert not prepared_folders(empty_dir)


KILLED = """
import os, signal, sys
from mnist_jax import data, images
count, read = 0, images.read_image
def read_some(path, shape):
    global count
    count += 1
    if count == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(path, shape)
images.READERS["strokes"] = read_some
data.load("folder", *sys.argv[1:])
"""
LOAD = """
import sys
from mnist_jax import data
print(data.load("folder", *sys.argv[1:]).sha256)
"""


def test_a_killed_process_and_two_at_once_leave_whole_data(tree, load, empty_dir):
    killed = run_python(KILLED, empty_dir, tree)
    killed.communicate(timeout=GENEROUS_SECONDS)
    assert killed.returncode == -signal.SIGKILL
    assert not prepared_folders(empty_dir)
    processes = [run_python(LOAD, empty_dir, tree) for _ in range(2)]
    outputs = [process.communicate(timeout=GENEROUS_SECONDS) for process in processes]
    assert [output for output, _ in outputs] == 2 * [f"{load(tree).sha256}\n"], outputs
    assert len(prepared_folders(empty_dir)) == 1


def test_damaged_prepared_classes_are_told(tree, load, empty_dir):
    load(tree)
    [path] = empty_dir.rglob("label.labels.txt")
    path.write_text("one\ntwo\nthree\n")
    assert "the prepared data are damaged (SHA-256 differs" in error_of(load, tree)


def test_auto_and_other_data_sets_are_never_a_folder(tree, empty_dir, unreachable):
    for name in ("auto", "mnist"):
        error = error_of(data.load, name, empty_dir, tree)
        assert error.startswith(f"{tree}: train-images-idx3-ubyte, ")
    assert data.load("auto", empty_dir).name == "digits"
    assert "--dataset=folder needs --raw_dir" in error_of(data.load, "folder")


def test_several_faults_are_one_error_for_who_calls(tree, load):
    bad_files(tree)
    with pytest.raises(UserErrors) as caught:
        load(tree)
    assert len(caught.value.errors) == 3
