"""What a person can get wrong, each told in one line that says what to do instead.

Each case has what the line must say: the flag or file, its value, the remedy. What
Config alone refuses is in test_config.py.
"""

import contextlib
import functools
import gzip
import json
import os
import shutil
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from forked_launch import ROOT, XLA_FLAGS
from PIL import Image, ImageDraw
from small_data import idx_bytes

from mnist_jax import data
from mnist_jax.data import idx
from mnist_jax.storage import records

TRAIN = "--dataset=digits --model=linear --epochs=1"
PREDICT, EVALUATE, PLOT = (
    f"--mode={mode} --workdir=run" for mode in ("predict", "evaluate", "plot")
)
LONG = "n" * 300
HELP = "Pass --helpshort or --helpfull to see help on flags."

# What absl refuses, and ends by pointing to the help: id -> (arguments, what is said).
USAGE = {
    "none of the choices": ("--model=transformer", "--model=transformer", "rnn|lstm"),
    "no whole number": ("--epochs=1.5", "--epochs=1.5", "int()"),
    "no such flag": ("--epoch=3", "'epoch'", "epochs"),
}
SETTINGS = {
    "whole number": ("--epochs=0", "--epochs=0: expected a whole number from 1 to"),
    "huge number": (f"--seed={'9' * 40}", f"--seed={'9' * 40}: expected", "4294967295"),
    "nan": ("--learning_rate=nan", "--learning_rate=nan: expected a number from"),
    "share": ("--dropout=1.0", "--dropout=1.0: expected", "below 1"),
    "text": ("--data_dir=a\nb", "--data_dir='a\\nb': expected a text"),
    "several": ("--model=mlp --hidden_sizes=8,,8", "--hidden_sizes=8,,8", "as in 512,"),
    "size of zero": ("--model=mlp --hidden_sizes=0", "--hidden_sizes=0: expected"),
    "fast gru": ("--preset=fast", "--preset=fast: gru", "--model=cnn"),
    "fast digits": ("--model=cnn --preset=fast", "--preset=fast: cnn", "60,000 images"),
    "of another model": ("--model=cnn --units=3", "--units is not", "leave it out"),
    "images to train": ("--images=a.png", "--images has", "--mode=predict"),
    "a word": ("gru", "'gru' is not a flag", "write --name=value"),
    "a word after --": ("-- --epochs=3", "'--epochs=3' is not", "write --name=value"),
    "uneven devices": (
        "--model=linear --num_devices=2 --batch_size=33",
        "--batch_size=33", "--num_devices=2", "give a multiple of 2",
    ),
    "batch beyond the data": (
        "--batch_size=1261", "--batch_size=1261: digits has 1260", "or fewer",
    ),
    "nothing left to train on": (
        "--validation_fraction=0.9999", "--validation_fraction=0.9999", "lower",
    ),
    "process without address": (
        "--num_processes=2", "--num_processes=2 needs --coordinator_address",
    ),
    "address of nothing": (
        "--coordinator_address=here --num_processes=2 --process_id=0",
        "--coordinator_address=here: expected host:port",
    ),
    "process beyond": (
        "--coordinator_address=localhost:1 --num_processes=2 --process_id=2",
        "--process_id=2: expected",
    ),
}  # fmt: skip
MODES = {
    "plot what": ("--mode=plot", "--mode=plot needs --workdir", "give the folder"),
    "predict what": (PREDICT, "--mode=predict needs --images", "give files"),
    "predict nothing": (f"{PREDICT} --images=", "needs --images", "give files"),
    "predict commas": (f"{PREDICT} --images=,,", "needs --images", "give files"),
    "predict with data": (
        f"{PREDICT} --images=digit.png --data_dir=early",
        "--data_dir has no effect with --mode=predict", "leave it out",
    ),
    "plot with raw files": (f"{PLOT} --raw_dir=cut", "--raw_dir has no effect with"),
    "evaluate with a seed": (f"{EVALUATE} --seed=1", "--seed has no", "leave it out"),
    "plot a model": (f"{PLOT} --model=cnn", "--model has no", "leave it out"),
    "plot nowhere": ("--mode=plot --workdir=none", "--workdir=none", "give the folder"),
    "evaluate nowhere": (
        "--mode=evaluate --workdir=none", "--workdir=none holds", "give the folder",
    ),
    "evaluate a file": (
        "--mode=evaluate --workdir=text.png", "--workdir=text.png", "give another",
    ),
    "predict nowhere": (
        "--mode=predict --workdir=nöwhere --images=digit.png",
        "--workdir=nöwhere holds no run", "give the folder",
    ),
    "export what": ("--mode=export", "--mode=export needs --workdir", "give "),
    "export images": (
        "--mode=export --workdir=run --images=digit.png",
        "--images has no effect with --mode=export", "leave it out",
    ),
    "export nowhere": (
        "--mode=export --workdir=none", "--workdir=none holds no", "give the folder",
    ),
    "evaluate without checkpoint": (
        "--mode=evaluate --workdir=early", "early/checkpoints holds no", "train first",
    ),
    "plot in a long name": (
        f"--mode=plot --workdir={LONG}", f"--workdir={LONG}", "give ",
    ),
}  # fmt: skip
FOLDERS = {
    "workdir is a file": (
        f"{TRAIN} --workdir=text.png", "--workdir=text.png", "give another",
    ),
    "workdir in a device": (
        f"{TRAIN} --workdir=/dev/null/x", "--workdir=/dev/null/x", "give a folder",
    ),
    "workdir in the kernel": (
        f"{TRAIN} --workdir=/proc/x", "--workdir=/proc/x", "give a folder that can",
    ),
    "workdir of a long name": (f"{TRAIN} --workdir={LONG}", f"={LONG}", "give "),
    "workdir of no name": (f"{TRAIN} --workdir=", "--workdir= cannot", "give "),
    "workdir at nobody's home": (
        f"{TRAIN} --workdir=~no-one/x", "--workdir=~no-one/x", "give ",
    ),
    "workdir of bytes": (f"{TRAIN} --workdir=\udcff", "\\udcff", "give "),
    "workdir of other settings": (
        f"{TRAIN} --workdir=run --learning_rate=1",
        "run holds another run", "--learning_rate=0.005 there, 1.0 here", "--overwrite",
    ),
    "data_dir is a file": (
        f"{TRAIN} --data_dir=text.png", "text.png: cannot", "choose another --data_dir",
    ),
    "data_dir in the kernel": (
        f"{TRAIN} --data_dir=/proc/x", "/proc/x: cannot", "choose another --data_dir",
    ),
    "data_dir at nobody's home": (
        f"{TRAIN} --data_dir=~nobody_here/x", "~nobody_here/x", "give the folder",
    ),
    "prepared data damaged": (
        f"{TRAIN} --data_dir=damaged", "damaged/mnist_jax_digits", "delete this folder",
    ),
    "raw_dir missing": (
        "--dataset=mnist --raw_dir=nöwhere", "--raw_dir=nöwhere", "expected one that",
    ),
    "raw_dir empty": (
        "--dataset=mnist --raw_dir=early", "early: train-images", "give another",
    ),
    "raw_dir of other data": (
        "--dataset=kmnist --model=linear --raw_dir=other --data_dir=small data",
        "--raw_dir=other: not the data of the prepared", "--data_dir", "leave",
    ),
    "raw files are pages": (
        "--dataset=mnist --raw_dir=pages", "pages/train-images-idx3-ubyte: begins with",
        "replace it by the original",
    ),
    "raw files are cut": (
        "--dataset=auto --raw_dir=cut", "cut/train-images-idx3-ubyte: 10 bytes after",
        "replace it by the original",
    ),
}  # fmt: skip
DIGIT = "write one digit with a dark pen"
AGAIN = "save it again as PNG"
# id -> (image, what the line says)
IMAGES = {
    "missing image": ("no där.png", "no such file", "check name and folder"),
    "folder without images": (
        "run/checkpoints",
        "no image file in this folder",
        "check the folder's name",
    ),
    "pattern of nothing": ("no*.png", "no file has such a name", "check the folder's"),
    "empty file": ("empty.png", "the file is empty", "save or copy it again"),
    "page": ("page.png", "cannot be read as an image", AGAIN),
    "EPS": ("drawing.eps", "cannot be read as an image", AGAIN),
    "cut": ("cut.png", "cannot be read as an image", AGAIN),
    "damaged under a long way": ("Ünï cödé/日本 7.png", "cannot be read", AGAIN),
    "one pixel": ("dot.png", "no digit found", DIGIT),
    "blank": ("blank.png", "no digit found", DIGIT),
    "huge": ("huge.png", "more than 50 megapixels", "crop it to the digit"),
    "claims to be huge": ("claim.png", "more than 50 megapixels", "crop it"),
    "in a file": ("text.png/x.png", "Not a directory", "check name, folder"),
    "device": ("/dev/zero", "a device", "save the image as a file"),
    "long name": (f"{LONG}.png", "File name too long", "check name"),
}
# id, which begins with the modes -> (file of a run, its content, what the line says);
# None is for no such file, ... for a folder, a dict for a change to config.json, in
# which ... leaves a setting out.
RUN_FILES = {
    "train, evaluate, plot: half a config": ("config.json", b'{"model":', "restore"),
    "train, predict: binary config": ("config.json", b"\xff\xfe\0", "restore"),
    "evaluate: config is a folder": ("config.json", ..., "restore"),
    "evaluate: config too deep": ("config.json", b"[" * 9**5, "restore"),
    "evaluate, plot: list for a config": ("config.json", b"[1]", "restore"),
    "plot: config without model": ("config.json", {"model": ...}, "restore"),
    "evaluate: later schema": ("config.json", {"schema": 99}, "another version"),
    "evaluate: later setting": ("config.json", {"momentum": 1}, "use that version"),
    "evaluate: quoted epochs": ("config.json", {"epochs": "3"}, "restore"),
    "evaluate: future model": ("config.json", {"model": "vit"}, "expected one of"),
    "evaluate: unknown data": ("config.json", {"dataset": "cifar"}, "expected one of"),
    "evaluate: no checkpoints": ("checkpoints", None, "train first"),
    "evaluate: half a checkpoint": ("checkpoints/39/params", None, "--overwrite"),
    "plot: list for an epoch": ("metrics.jsonl", b"[1]\n", "restore"),
    "plot: epoch of no loss": ("metrics.jsonl", b'{"epoch": 1}\n', "restore"),
    "train, plot: result of nothing": ("result.json", b"{}", "restore"),
    "plot: predictions damaged": ("predictions.npz", b"PK\3\4", "restore"),
    "plot: figures in the way": ("figures", b"", "a copy of the run as --workdir"),
}


def _png(width, height, content):
    """A PNG of grey levels that holds `content`, compressed."""

    def chunk(name, data):
        end = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + end

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", content), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in chunks)


def _zeros(num_rows, row_size):
    packer = zlib.compressobj(1)
    rows = bytes(100 * row_size)
    pieces = [packer.compress(rows) for _ in range(num_rows // 100)]
    return b"".join([*pieces, packer.flush()])


def _draw_seven(path):
    image = Image.new("L", (90, 120), 235)
    pen = ImageDraw.Draw(image)
    pen.line([(20, 20), (70, 20), (35, 100)], fill=20, width=9, joint="curve")
    image.save(path)


def _write_images(folder):
    _draw_seven(folder / "digit.png")
    digit = (folder / "digit.png").read_bytes()
    middle = len(digit) // 2
    zeros = zlib.compress(bytes(61 * 60))
    files = {
        "empty.png": b"",
        "text.png": b"digit: seven\n",
        "page.png": b"<!DOCTYPE html><html><body>404</body></html>",
        "drawing.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        "cut.png": digit[:middle],
        "Ünï cödé/日本 7.png": _png(60, 60, zeros[: len(zeros) // 2]),
        "dot.png": _png(1, 1, zlib.compress(b"\0\0")),
        "blank.png": _png(60, 60, zeros),
        "huge.png": _png(20_000, 20_000, _zeros(20_000, 20_001)),
        "claim.png": _png(60_000, 60_000, b""),
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


def _write_data(folder):
    files = {
        "pages/{}": b"<html>not found</html>",
        "cut/{}": struct.pack(">4B3I", 0, 0, 8, 3, 60_000, 28, 28) + bytes(10),
        "damaged/mnist_jax_digits/1.0.0/dataset_info.json": b"{",
    }
    for pattern, content in files.items():
        for name in idx.FILES.values():
            path = folder / pattern.format(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def _write_small(folder, value):
    """A data set of 50 images of one grey."""
    images, labels = np.full((50, 28, 28), value, np.uint8), np.arange(50) % 10
    folder.mkdir()
    for name in idx.FILES.values():
        array = images if "images" in name else labels.astype(np.uint8)
        (folder / name).write_bytes(idx_bytes(array))


def _files(folder):
    """Everything under a folder: path -> when it was changed, for files."""
    return {
        path: path.stat().st_mtime_ns if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The folder in which every command line is given, with the data prepared in it."""
    folder = tmp_path_factory.mktemp("Ünï cödé ①")
    _write_images(folder)
    _write_data(folder)
    _write_small(folder / "small", 7)
    _write_small(folder / "other", 8)
    data.prepare("kmnist", folder / "small data", folder / "small")
    return folder


@pytest.fixture(scope="module")
def launch(here, forked):
    """Runs a command line of launch.py; `run` in `here` is a run that is complete."""
    launch = functools.partial(forked, TFDS_DATA_DIR=str(here / "prepared data"))
    done = launch(*TRAIN.split(), "--workdir=run", cwd=here)
    assert done.code == 0, done.errors
    (here / "early/checkpoints").mkdir(parents=True)
    shutil.copy(here / "run" / records.CONFIG, here / "early")
    return launch


def assert_told(launch, here, arguments, *told, closing=(), **environment):
    """Refused with one line that has all of `told`, and nothing left behind."""
    before = _files(here)
    done = launch(*arguments, cwd=here, **environment)
    assert done.code == 1, done
    assert "Traceback" not in done.output + done.errors
    assert not done.output
    line, *others = done.errors.splitlines()
    assert others == list(closing)
    for text in told:
        assert text in line
    assert _files(here) == before, "something was written"
    return done


@contextlib.contextmanager
def changed_run(here, file, content):
    """`changed` in `here`: a run with another file."""
    workdir = shutil.copytree(here / "run", here / "changed")
    path = workdir / file
    if isinstance(content, dict):
        settings = json.loads(path.read_text()) | content
        settings = {name: value for name, value in settings.items() if value is not ...}
        content = json.dumps(settings).encode()
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if content is ...:
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    try:
        yield
    finally:
        shutil.rmtree(workdir)


def table(*tables):
    """Parameters from tables of id -> (first, *texts)."""
    rows = {name: row for rows in tables for name, row in rows.items()}
    assert len(rows) == sum(map(len, tables)), "an id is there twice"
    return [pytest.param(row[0], row[1:], id=name) for name, row in rows.items()]


def split(arguments):
    """At spaces before a flag: values may have some."""
    return arguments.replace(" --", "\0--").split("\0")


@pytest.mark.parametrize("arguments, told", table(USAGE))
def test_flag_that_cannot_be_read(launch, here, arguments, told):
    assert_told(launch, here, [arguments], *told, closing=[HELP])


@pytest.mark.parametrize("arguments, told", table(SETTINGS))
def test_setting_that_does_not_serve(launch, here, arguments, told):
    arguments = ["--dataset=digits", *split(arguments)]
    assert_told(launch, here, arguments, "error: ", *told)


@pytest.mark.parametrize("arguments, told", table(MODES, FOLDERS))
def test_mode_or_folder_that_does_not_serve(launch, here, arguments, told):
    assert_told(launch, here, split(arguments), "error: ", *told)


@pytest.mark.parametrize("image, told", table(IMAGES))
def test_image_that_cannot_be_read(launch, here, image, told):
    arguments = [*PREDICT.split(), f"--images={image}"]
    done = assert_told(launch, here, arguments, f"error: {image}: ", *told)
    assert done.peak_bytes < 2**29


def test_images_that_can_be_read_are_classified_beside_those_that_cannot(launch, here):
    shutil.copy(here / "digit.png", here / "läufe.png")
    arguments = [
        "--images=blank.png,digit.png,,missing.png", "--images=~/läufe.png,",
        "--images=text.png,digit.png",
    ]  # fmt: skip
    done = launch(*PREDICT.split(), *arguments, cwd=here, HOME=str(here))
    assert done.code == 1
    *lines, figure = done.output.splitlines()
    paths = ["digit.png", "~/läufe.png", "digit.png"]
    assert [line.partition(": ")[0] for line in lines] == paths
    assert len({line.partition(": ")[2] for line in lines}) == 1
    assert figure == "figure in run/figures/images.png"
    errors = [line.split(": ")[:2] for line in done.errors.splitlines()]
    bad = ["blank.png", "missing.png", "text.png"]
    assert errors == [["error", path] for path in bad]


def test_predictions_are_printed_where_their_figure_cannot_be_written(launch, here):
    with changed_run(here, "figures", b""):
        arguments = ["--mode=predict", "--workdir=changed", "--images=digit.png"]
        done = launch(*arguments, cwd=here)
    assert done.code == 1 and done.output.startswith("digit.png: ")
    [line] = done.errors.splitlines()
    assert line.startswith("error: changed/figures/images.png cannot be written (")
    assert "give a copy of the run as --workdir" in line


@pytest.mark.parametrize("file, told", table(RUN_FILES))
def test_damaged_file_of_a_run(launch, here, request, file, told):
    content, remedy = told
    modes = request.node.callspec.id.partition(":")[0].split(", ")
    with changed_run(here, file, content):
        for mode in modes:
            arguments = TRAIN.split() if mode == "train" else [f"--mode={mode}"]
            if mode == "predict":
                arguments.append("--images=digit.png")
            assert_told(
                launch, here, [*arguments, "--workdir=changed"],
                "error: ", "changed/" + file.removesuffix("/params"), remedy,
            )  # fmt: skip


def test_more_devices_than_there_are(launch, here):
    two = "--xla_force_host_platform_device_count=2"
    arguments = [*TRAIN.split(), "--num_devices=3", "--batch_size=33"]
    told = "error: --num_devices=3: this machine has 2", "give 2 or fewer"
    assert_told(launch, here, arguments, *told, XLA_FLAGS=two)


def test_gzip_bomb_costs_no_memory(launch, here):
    """Files of 3 MB, each 3 GiB once unpacked."""
    header = gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, 60_000, 28, 28))
    (here / "bomb").mkdir()
    for name in idx.FILES.values():
        content = header + 192 * gzip.compress(bytes(2**24))
        (here / "bomb" / f"{name}.gz").write_bytes(content)
    arguments = ["--dataset=fashion_mnist", "--raw_dir=bomb"]
    told = "bomb/train-images-idx3-ubyte.gz: more than 47040000 bytes", "replace it"
    assert assert_told(launch, here, arguments, *told).peak_bytes < 2**29


def run_in_shell(arguments, redirection, cwd):
    command = f'"$0" "$@" {redirection}'
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command, sys.executable, ROOT / "launch.py"]
        + arguments.split(),
        cwd=cwd,
        env={**os.environ, "XLA_FLAGS": XLA_FLAGS},
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
    )


@pytest.mark.skipif(not shutil.which("bash"), reason="needs a shell")
def test_closed_errors_do_not_stop_a_run(launch, here):
    done = run_in_shell(f"{TRAIN} --workdir=silent", ">/dev/null 2>&-", here)
    assert done.returncode == 0
    assert len(list((here / "silent/figures").iterdir())) == 5


@pytest.mark.skipif(not shutil.which("bash"), reason="needs a shell")
@pytest.mark.parametrize(
    "redirection, code",
    [
        (">/dev/full", 1),
        pytest.param(">&-", 0, marks=pytest.mark.slow),
        pytest.param("| true", 128 + 13, marks=pytest.mark.slow),
    ],
)
def test_an_output_that_takes_nothing_is_no_traceback(launch, here, redirection, code):
    done = run_in_shell(PLOT, redirection, here)
    assert done.returncode == code, done.stderr
    told = ["error: the output: No space left on device: make room there, or give "]
    lines = [line[: len(told[0])] for line in done.stderr.splitlines()]
    assert lines == (told if code == 1 else [])


def test_names_of_any_script_serve_even_where_figures_cannot_show_them(launch, here):
    workdir, image = here / "läufe/erster lauf ①", here / "ψηφίο 文字 7.png"
    shutil.copy(here / "digit.png", image)
    done = launch(*TRAIN.split(), f"--workdir={workdir}", cwd=here)
    assert done.code == 0 and f"records in {workdir}, figures in" in done.output
    arguments = ["--mode=predict", f"--workdir={workdir}", f"--images={image}"]
    done = launch(*arguments, cwd=here)
    assert done.code == 0
    [line] = done.errors.splitlines()
    assert "lacks the letters '文字'; rename the file" in line
    assert f"{image}: " in done.output
    assert (workdir / "figures/images.png").exists()
