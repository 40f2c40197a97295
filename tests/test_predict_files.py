"""`--mode=predict` of folders and patterns, and its table."""

import csv
import io
import os

import numpy as np
import pytest
from PIL import Image

from mnist_jax import data, images, predict, training
from mnist_jax.config import make_config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("predict_files") / "run"
    training.train_and_evaluate(
        make_config("linear", "digits", epochs=2, num_devices=1), path
    )
    return path


@pytest.fixture
def scans(tmp_path):
    """Five images in a tree, one of them broken, among other files."""
    names = ["b.png", "a.PNG", "deep/er/c.jpg", "d.bmp"]
    for name, image in zip(names, data.load("digits").test_images, strict=False):
        path = tmp_path / "scans" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # As a person has it: dark on light, and large.
        Image.fromarray(255 - image[..., 0]).resize((112, 112)).save(path)
    (tmp_path / "scans/notes.txt").write_text("no image")
    (tmp_path / "scans/.hidden.png").write_bytes(b"")
    (tmp_path / "scans/.cache").mkdir()
    (tmp_path / "scans/.cache/e.png").write_bytes(b"")
    (tmp_path / "scans/broken.png").write_bytes(b"no image")
    return tmp_path / "scans"


def _rows(path):
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.reader(file))


def test_folders_and_patterns_stand_for_their_files(scans):
    def found(*given):
        files, errors = images.find_files(given)
        assert not errors
        return [os.path.relpath(file, scans) for file in files]

    everything = ["a.PNG", "b.png", "broken.png", "d.bmp", "deep/er/c.jpg"]
    assert found(str(scans)) == everything
    assert found(f"{scans}/*.png") == ["b.png", "broken.png"]
    assert found(f"{scans}/**/*.jpg") == ["deep/er/c.jpg"]
    assert found(f"{scans}/d.bmp", f"{scans}/deep") == ["d.bmp", "deep/er/c.jpg"]
    # A file is taken at its word, also one that is not there: reading it tells why.
    assert found(f"{scans}/missing.png") == ["missing.png"]


def test_a_file_named_like_a_pattern_is_that_file(scans):
    (scans / "b.png").rename(scans / "[b].png")
    assert images.find_files([f"{scans}/[b].png"])[0] == [f"{scans}/[b].png"]


def test_what_stands_for_no_file_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    files, errors = images.find_files([f"{tmp_path}/empty", f"{tmp_path}/*.png"])
    assert files == []
    assert "empty: no image file in this folder (.png .jpg" in str(errors[0])
    assert "*.png: no file has such a name" in str(errors[1])


def test_the_table_holds_every_image_that_can_be_read(workdir, scans, run_launch):
    folder = scans.parent
    output, errors = run_launch(
        "--mode=predict", f"--workdir={workdir}", "--images=scans",
        "--output=predictions.csv", cwd=folder, code=1,
    )  # fmt: skip
    assert output.startswith("4 predictions in predictions.csv\n")
    assert errors.count("\n") == 1 and "scans/broken.png: cannot be read" in errors
    header, *rows = _rows(folder / "predictions.csv")
    assert header == ["file", "class", *"0123456789"]
    names = ["a.PNG", "b.png", "d.bmp", "deep/er/c.jpg"]
    assert [row[0] for row in rows] == [f"scans/{name}" for name in names]
    stack = np.stack([images.read_image(folder / row[0]) for row in rows])
    expected = predict.predict(workdir, stack)
    assert [row[1] for row in rows] == [str(i) for i in expected.argmax(1)]
    shares = np.array([row[2:] for row in rows], float)
    np.testing.assert_allclose(shares, expected, atol=2e-6)


def test_names_that_are_no_text_are_kept_byte_by_byte(workdir, scans, run_launch):
    name = os.fsdecode(b'scans/\xff,"7".png')
    (scans / "b.png").rename(scans.parent / name)
    run_launch(
        "--mode=predict", f"--workdir={workdir}", "--images=scans/*7*.png",
        "--output=table.csv", cwd=scans.parent,
    )  # fmt: skip
    assert _rows(scans.parent / "table.csv")[1][0] == name


def test_a_table_that_is_a_link_is_written_where_it_points(workdir, scans, run_launch):
    (scans.parent / "latest.csv").symlink_to("first.csv")
    run_launch(
        "--mode=predict", f"--workdir={workdir}", "--images=scans",
        "--output=latest.csv", cwd=scans.parent, code=1,
    )  # fmt: skip
    assert (scans.parent / "latest.csv").is_symlink()
    assert _rows(scans.parent / "first.csv")


@pytest.mark.parametrize("place", ["nowhere/table.csv", "scans", "pipe"])
def test_a_table_that_cannot_be_written_is_told_at_once(
    workdir, scans, run_launch, place
):
    os.mkfifo(scans.parent / "pipe")  # no file, as /dev/null is none
    _, errors = run_launch(
        "--mode=predict", f"--workdir={workdir}", "--images=scans",
        f"--output={place}", cwd=scans.parent, code=1,
    )  # fmt: skip
    assert errors.startswith(f"error: --output={place}: expected a file in a folder")


def test_opened_files_are_read_as_named_ones(scans):
    content = (scans / "b.png").read_bytes()
    np.testing.assert_array_equal(
        images.read_image(io.BytesIO(content)), images.read_image(scans / "b.png")
    )
    with pytest.raises(images.NoDigitError, match="the image: no digit found"):
        blank = io.BytesIO()
        Image.new("L", (50, 50), 255).save(blank, "PNG")
        images.read_image(blank)
