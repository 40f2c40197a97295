"""What a person can get wrong, each told in one line that says what to do instead."""

import contextlib
import gzip
import json
import shutil
import struct
import zlib

import pytest
from forked_launch import forked_launch
from PIL import Image, ImageDraw

from mnist_jax import records
from mnist_jax.datasets import idx

TRAIN = "--dataset=digits --model=linear --epochs=1"
PREDICT, EVALUATE, PLOT = (
    f"--mode={mode} --workdir=run" for mode in ("predict", "evaluate", "plot")
)
LONG = "n" * 300
HELP = "Pass --helpshort or --helpfull to see help on flags."

# What absl refuses, which ends by pointing to the help: id -> (arguments, what the line
# says). The id of each table is what is wrong.
USAGE = {
    "no such model": ("--model=transformer", "linear|mlp|cnn|lenet5|resnet|rnn"),
    "model in capitals": ("--model=GRU", "rnn|lstm|gru"),
    "empty model": ("--model=", "value should be one of <linear|mlp|"),
    "no such mode": ("--mode=test", "<train|evaluate|predict|plot>"),
    "no such data set": ("--dataset=cifar", "<auto|mnist|fashion_mnist|kmnist|digits>"),
    "no such preset": ("--preset=best", "<default|quick|fast>"),
    "no such optimizer": ("--optimizer=lion", "<adam|adamw|rmsprop|sgd>"),
    "no such schedule": ("--schedule=linear", "<constant|cosine|onecycle>"),
    "no such augmentation": ("--augment=flip", "<none|shift|affine>"),
    "no such sequence": ("--sequence=diagonal", "<rows|columns|pixels>"),
    "text for epochs": ("--epochs=many", "invalid literal for int()"),
    "half an epoch": ("--epochs=1.5", "invalid literal for int()"),
    "no epochs given": ("--epochs=", "invalid literal for int()"),
    "text for a seed": ("--seed=abc", "invalid literal for int()"),
    "half a batch": ("--batch_size=1.5", "invalid literal for int()"),
    "half a unit": ("--units=0.5", "invalid literal for int()"),
    "decimal comma": ("--learning_rate=1,5", "could not convert string to float"),
    "text for a rate": ("--weight_decay=low", "could not convert string to float"),
    "text for a switch": ("--overwrite=maybe", "Non-boolean argument"),
    "number for a switch": ("--bidirectional=2", "Non-boolean argument"),
}
# What absl refuses without repeating flag=value.
UNKNOWN = {
    "no such flag": ("--no_such_flag=1", "Unknown command line flag 'no_such_flag'"),
    "misspelt flag": ("--epoch=3", "'epoch'. Did you mean: epochs ?"),
    "hyphens in a flag": ("--learning-rate=1", "Did you mean: learning_rate ?"),
    "no short flags": ("-x", "Unknown command line flag 'x'"),
    "no of what is no switch": ("--nomodel", "'nomodel'. Did you mean: model ?"),
    "flag without its value": ("--epochs", "Missing value for flag --epochs"),
    "no such file of flags": ("--flagfile=nowhere", "open flagfile", "'nowhere'"),
}
FLOAT32, SHARE = "a number from 0 to 1e38", "a number of at least 0 and below 1"
SIZES = "whole numbers, as in 512,256"
# What Config refuses: id -> (arguments, what was expected of the last)
RANGES = {
    "no epochs": ("--epochs=0", "a whole number of 1 or more"),
    "epochs below zero": ("--epochs=-3", "a whole number of 1 or more"),
    "endless epochs": ("--epochs=3000000000", "a whole number of 1000000 or less"),
    "empty batch": ("--batch_size=0", "a whole number of 1 or more"),
    "batch below zero": ("--batch_size=-5", "a whole number of 1 or more"),
    "seed below zero": ("--seed=-1", "a whole number from 0 to 4294967295"),
    "seed too large": ("--seed=4294967296", "a whole number from 0 to 4294967295"),
    "huge seed": (f"--seed={'9' * 40}", "a whole number from 0 to 4294967295"),
    "rate of zero": ("--learning_rate=0.0", "a number from 1e-37 to 1e38"),
    "rate below zero": ("--learning_rate=-1.0", "a number from 1e-37 to 1e38"),
    "rate nan": ("--learning_rate=nan", "a number from 1e-37 to 1e38"),
    "rate inf": ("--learning_rate=inf", "a number from 1e-37 to 1e38"),
    "rate beyond float32": ("--learning_rate=1e+300", "a number from 1e-37 to 1e38"),
    "rate of 0 in float32": ("--learning_rate=1e-99", "a number from 1e-37 to 1e38"),
    "decay below zero": ("--weight_decay=-1.0", FLOAT32),
    "decay nan": ("--weight_decay=nan", FLOAT32),
    "decay inf": ("--weight_decay=inf", FLOAT32),
    "norm below zero": ("--clip_norm=-1.0", FLOAT32),
    "norm nan": ("--clip_norm=nan", FLOAT32),
    "all smoothed": ("--label_smoothing=1.0", SHARE),
    "smoothing nan": ("--label_smoothing=nan", SHARE),
    "all dropped": ("--dropout=1.0", SHARE),
    "dropout below zero": ("--dropout=-1.0", SHARE),
    "all for validation": ("--validation_fraction=1.0", SHARE),
    "validation nan": ("--validation_fraction=nan", SHARE),
    "no units": ("--units=0", "a whole number of 1 or more"),
    "endless units": ("--units=2000000", "a whole number of 16384 or less"),
    "layers below zero": ("--layers=-1", "a whole number of 1 or more"),
    "endless layers": ("--layers=2000", "a whole number of 100 or less"),
    "no hidden sizes": ("--model=mlp --hidden_sizes=", f"1 to 100 {SIZES}"),
    "text for a size": ("--model=mlp --hidden_sizes=a,b", SIZES),
    "size left out": ("--model=mlp --hidden_sizes=8,,8", SIZES),
    "size of zero": ("--model=mlp --hidden_sizes=0", "a whole number of 1 or more"),
    "devices below zero": ("--num_devices=-1", "a whole number of 0 or more"),
    "endless devices": ("--num_devices=100000", "a whole number of 1024 or less"),
    "never a checkpoint": ("--checkpoint_every=0", "a whole number of 1 or more"),
}
# id -> (arguments, what the line says: which flag or path, its value, the remedy)
CONFLICTS = {
    "no fast gru": ("--preset=fast", "--preset=fast: gru has", "give --model=cnn, or"),
    "no fast mlp": ("--model=mlp --preset=fast", "--preset=fast: mlp has", "give "),
    "units of cnn": ("--model=cnn --units=3", "--units is", "cnn: leave it out"),
    "dropout of linear": (
        "--model=linear --dropout=0", "--dropout is", "--model=linear: leave it out",
    ),
    "sequence of mlp": (
        "--model=mlp --sequence=rows", "--sequence is", "--model=mlp: leave it out",
    ),
    "sizes of gru": (
        "--hidden_sizes=3", "--hidden_sizes is", "--model=gru: leave it out",
    ),
    "images to train": ("--images=a.png", "--images has", "without --mode=predict"),
    "a word": ("gru", "'gru' is not a flag", "write --name=value"),
    "a word after a value": ("--model gru cnn", "'cnn' is not", "write --name=value"),
    "a word after --": ("-- --epochs=3", "'--epochs=3' is not", "write --name=value"),
    "uneven devices": (
        "--model=linear --num_devices=2 --batch_size=33",
        "--batch_size=33 does not divide", "--num_devices=2", "give a multiple of 2",
    ),
    "batch beyond the data": (
        "--batch_size=1261", "--batch_size=1261: digits has 1260", "or fewer",
    ),
    "batch beyond all": (f"--batch_size={'9' * 40}", f"={'9' * 40}: ", "or fewer"),
}  # fmt: skip
MODES = {
    "plot what": ("--mode=plot", "--mode=plot needs --workdir", "give the folder"),
    "evaluate what": ("--mode=evaluate", "evaluate needs --workdir", "give the folder"),
    "predict by what": ("--mode=predict --images=x", "needs --workdir", "give the"),
    "predict what": (PREDICT, "--mode=predict needs --images", "give files"),
    "predict nothing": (f"{PREDICT} --images=", "needs --images", "give files"),
    "evaluate with a seed": (f"{EVALUATE} --seed=1", "--seed has no", "leave it out"),
    "evaluate a data set": (f"{EVALUATE} --dataset=mnist", "--dataset has", "leave it"),
    "evaluate and overwrite": (f"{EVALUATE} --overwrite", "--overwrite has", "leave"),
    "evaluate images": (f"{EVALUATE} --images=a.png", "--images has", "leave it out"),
    "plot with units": (f"{PLOT} --units=3", "--units has no", "leave it out"),
    "plot a model": (f"{PLOT} --model=cnn", "--model has no", "leave it out"),
    "predict with a preset": (f"{PREDICT} --preset=quick", "--preset has", "leave it"),
    "plot nowhere": ("--mode=plot --workdir=none", "--workdir=none", "give the folder"),
    "evaluate nowhere": (
        "--mode=evaluate --workdir=none", "--workdir=none holds", "give the folder",
    ),
    "evaluate a file": (
        "--mode=evaluate --workdir=text.png", "--workdir=text.png", "give another",
    ),
    "evaluate in a device": (
        "--mode=evaluate --workdir=/dev/null/x", "=/dev/null/x holds", "give the",
    ),
    "predict nowhere": (
        "--mode=predict --workdir=nöwhere --images=digit.png",
        "--workdir=nöwhere holds no run", "give the folder",
    ),
    "evaluate without checkpoint": (
        "--mode=evaluate --workdir=early", "early/checkpoints holds no", "train first",
    ),
    "predict without checkpoint": (
        "--mode=predict --workdir=early --images=digit.png",
        "early/checkpoints holds no", "train first",
    ),
}  # fmt: skip
FOLDERS = {
    "workdir is a file": (
        f"{TRAIN} --workdir=text.png", "--workdir=text.png", "give another",
    ),
    "workdir in a file": (
        f"{TRAIN} --workdir=text.png/x", "--workdir=text.png/x", "give a folder",
    ),
    "workdir in a device": (
        f"{TRAIN} --workdir=/dev/null/x", "--workdir=/dev/null/x", "give a folder",
    ),
    "workdir in the kernel": (
        f"{TRAIN} --workdir=/proc/x", "--workdir=/proc/x", "give a folder that can",
    ),
    "workdir of other settings": (
        f"{TRAIN} --workdir=run --learning_rate=1",
        "run holds another run", "--learning_rate=0.005 there, 1.0 here", "--overwrite",
    ),
    "data_dir is a file": (
        f"{TRAIN} --data_dir=text.png", "text.png: cannot", "choose another --data_dir",
    ),
    "data_dir in a device": (
        f"{TRAIN} --data_dir=/dev/null/x", "/dev/null/x: cannot", "another --data_dir",
    ),
    "data_dir in the kernel": (
        f"{TRAIN} --data_dir=/proc/x", "/proc/x: cannot", "choose another --data_dir",
    ),
    "data_dir of a long name": (
        f"{TRAIN} --data_dir={LONG}", f"{LONG}: cannot", "name too long", "--data_dir",
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
    "raw_dir is a file": (
        "--dataset=mnist --raw_dir=text.png", "--raw_dir=text.png", "expected one that",
    ),
    "raw_dir of a long name": (
        f"--dataset=mnist --raw_dir={LONG}", f"--raw_dir={LONG}", "expected one that",
    ),
    "raw_dir at nobody's home": (
        "--dataset=mnist --raw_dir=~nobody_here", "~nobody_here", "give the folder",
    ),
    "raw_dir empty": (
        "--dataset=mnist --raw_dir=early", "early: train-images", "give another",
    ),
    "raw files are pages": (
        "--dataset=mnist --raw_dir=pages", "pages/train-images-idx3-ubyte: begins with",
        "replace it by the original",
    ),
    "raw files are cut": (
        "--dataset=auto --raw_dir=cut", "cut/train-images-idx3-ubyte: 10 bytes after",
        "replace it by the original",
    ),
    "raw files are empty": (
        "--dataset=kmnist --raw_dir=hollow", "hollow/train-images-idx3-ubyte: empty",
        "replace it by the original",
    ),
}  # fmt: skip
DIGIT = "write one digit with a dark pen"
AGAIN = "save it again as PNG"
# id -> (image, what the line says)
IMAGES = {
    "missing image": ("none.png", "no such file", "check name and folder"),
    "missing image with a space": ("no där.png", "no such file", "check name"),
    "folder for an image": ("run", "a folder", "name the image files in it"),
    "empty file": ("empty.png", "the file is empty", "save or copy it again"),
    "text": ("text.png", "cannot be read as an image", AGAIN),
    "page": ("page.png", "cannot be read as an image", AGAIN),
    "EPS": ("drawing.eps", "cannot be read as an image", AGAIN),
    "SVG": ("drawing.svg", "cannot be read as an image", AGAIN),
    "cut": ("cut.png", "cannot be read as an image", AGAIN),
    "damaged": ("damaged.png", "cannot be read as an image", AGAIN),
    "damaged under a long way": ("Ünï cödé/日本 7.png", "cannot be read", AGAIN),
    "one pixel": ("dot.png", "no digit found", DIGIT),
    "blank": ("blank.png", "no digit found", DIGIT),
    "huge": ("huge.png", "more than 50 megapixels", "crop it to the digit"),
    "claims to be huge": ("claim.png", "more than 50 megapixels", "crop it"),
    "in a file": ("text.png/x.png", "Not a directory", "check name, folder"),
    "in a device": ("/dev/null/x.png", "Not a directory", "check name, folder"),
    "device": ("/dev/zero", "a device", "save the image as a file"),
    "memory": ("/proc/self/mem", "empty", "save or copy it again"),
    "long name": (f"{LONG}.png", "File name too long", "check name"),
}
DAMAGED = "restore"
# id -> (config.json, what the line says)
UNREADABLE = {
    "empty config": (b"", "config.json is damaged", DAMAGED),
    "half a config": (b'{"model": "lin', "config.json is damaged", DAMAGED),
    "binary config": (b"\xff\xfe\0", "config.json is damaged", DAMAGED),
}
# The same, or the change to it; ... leaves a setting out.
CONFIGS = UNREADABLE | {
    "list for a config": ([1], "damaged (no JSON object", DAMAGED),
    "number for a config": (7, "damaged (no JSON object", DAMAGED),
    "config without model": ({"model": ...}, "damaged (model is missing)", DAMAGED),
    "config of another version": ({"momentum": 0.9}, "momentum", "use that version"),
    "list of models": ({"model": ["gru"]}, "--model=['gru']", DAMAGED),
    "quoted epochs": ({"epochs": "3"}, "--epochs='3'", DAMAGED),
    "switched batch": ({"batch_size": True}, "--batch_size=True", DAMAGED),
    "rate of null": ({"learning_rate": None}, "--learning_rate=None", DAMAGED),
    "rate of nan": ({"learning_rate": float("nan")}, "--learning_rate=nan", DAMAGED),
    "model of the future": ({"model": "vit"}, "--model=vit", "expected one of"),
    "units for linear": ({"units": 5}, "--units is not a setting", "leave it out"),
    "unknown data": ({"dataset": "cifar"}, "data set 'cifar'", "expected one of"),
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
        "drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9"/>',
        "drawing.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        "cut.png": digit[:middle],
        "damaged.png": digit[:middle] + bytes(40) + digit[middle + 40 :],
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
        "hollow/{}": b"",
        "damaged/mnist_jax_digits/1.0.0/dataset_info.json": b"{",
    }
    for pattern, content in files.items():
        for name in idx.FILES.values():
            path = folder / pattern.format(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


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
    return folder


@pytest.fixture(scope="module")
def launch(here):
    """Runs a command line of launch.py; `run` in `here` is a run that is complete."""
    with forked_launch(TFDS_DATA_DIR=str(here / "prepared data")) as launch:
        done = launch(*TRAIN.split(), "--workdir=run", cwd=here)
        assert done.code == 0, done.errors
        (here / "early/checkpoints").mkdir(parents=True)
        shutil.copy(here / "run" / records.CONFIG, here / "early")
        yield launch


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
def changed_run(here, content):
    """`changed` in `here`: a run with another config.json, settings or what it says."""
    workdir = shutil.copytree(here / "run", here / "changed")
    config = workdir / records.CONFIG
    if isinstance(content, dict):
        settings = json.loads(config.read_text()) | content
        content = {name: value for name, value in settings.items() if value is not ...}
    if not isinstance(content, bytes):
        content = json.dumps(content).encode()
    config.write_bytes(content)
    try:
        yield workdir
    finally:
        shutil.rmtree(workdir)


def table(*tables):
    """Parameters from tables of id -> (first, *texts)."""
    rows = {name: row for rows in tables for name, row in rows.items()}
    assert len(rows) == sum(map(len, tables)), "an id is there twice"
    return [pytest.param(row[0], row[1:], id=name) for name, row in rows.items()]


@pytest.mark.parametrize("arguments, told", table(USAGE))
def test_value_that_is_none_of_the_flag_s(launch, here, arguments, told):
    flag = f"flag {arguments}: "
    assert_told(launch, here, [arguments], flag, *told, closing=[HELP])


@pytest.mark.parametrize("arguments, told", table(UNKNOWN))
def test_flag_that_is_none(launch, here, arguments, told):
    assert_told(launch, here, [arguments], *told, closing=[HELP])


@pytest.mark.parametrize("arguments, expected", table(RANGES))
def test_value_out_of_range(launch, here, arguments, expected):
    arguments = arguments.split()
    told = f"error: {arguments[-1]}: expected {expected[0]}"
    assert_told(launch, here, arguments, told)


@pytest.mark.parametrize("arguments, told", table(CONFLICTS))
def test_setting_out_of_place(launch, here, arguments, told):
    arguments = ["--dataset=digits", *arguments.split()]
    assert_told(launch, here, arguments, "error: ", *told)


@pytest.mark.parametrize("arguments, told", table(MODES, FOLDERS))
def test_mode_or_folder_that_does_not_serve(launch, here, arguments, told):
    assert_told(launch, here, arguments.split(), "error: ", *told)


@pytest.mark.parametrize("image, told", table(IMAGES))
def test_image_that_cannot_be_read(launch, here, image, told):
    arguments = [*PREDICT.split(), f"--images={image}"]
    done = assert_told(launch, here, arguments, f"error: {image}: ", *told)
    assert done.peak_bytes < 2**29


def test_first_bad_image_of_several_is_named(launch, here):
    arguments = [*PREDICT.split(), "--images=digit.png,none.png,blank.png"]
    assert_told(launch, here, arguments, "error: none.png: no such file: check name")


@pytest.mark.parametrize("mode", ["evaluate", "predict"])
@pytest.mark.parametrize("content, told", table(CONFIGS))
def test_damaged_config(launch, here, mode, content, told):
    arguments = [f"--mode={mode}", "--workdir=changed"]
    if mode == "predict":
        arguments.append("--images=digit.png")
    with changed_run(here, content):
        assert_told(launch, here, arguments, "error: ", *told)


@pytest.mark.parametrize("content, told", table(UNREADABLE))
@pytest.mark.parametrize("arguments", ["--mode=plot", TRAIN], ids=["plot", "train"])
def test_unreadable_config(launch, here, arguments, content, told):
    arguments = [*arguments.split(), "--workdir=changed"]
    with changed_run(here, content):
        assert_told(launch, here, arguments, "error: changed/", *told)


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


def test_names_with_spaces_and_of_any_script_serve(launch, here):
    workdir, image = here / "läufe/erster lauf ①", here / "ψηφίο семь 7.png"
    shutil.copy(here / "digit.png", image)
    done = launch(*TRAIN.split(), f"--workdir={workdir}", cwd=here)
    assert done.code == 0 and f"records in {workdir}, figures in" in done.output
    arguments = ["--mode=predict", f"--workdir={workdir}", f"--images={image}"]
    done = launch(*arguments, cwd=here)
    assert (done.code, done.errors) == (0, "")
    assert f"{image}: " in done.output
    assert (workdir / "figures/images.png").exists()


FOLDERS = {
    "train in a long name": (f"{TRAIN} --workdir={LONG}", f"--workdir={LONG}", "give "),
    "evaluate in a long name": (
        f"--mode=evaluate --workdir={LONG}", f"--workdir={LONG}", "give ",
    ),
    "plot in a long name": (
        f"--mode=plot --workdir={LONG}", f"--workdir={LONG}", "give ",
    ),
    "predict in a long name": (
        f"--mode=predict --workdir={LONG} --images=digit.png",
        f"--workdir={LONG}", "give ",
    ),
    "train in no name": (f"{TRAIN} --workdir=", "--workdir= cannot", "give "),
    "plot in no name": ("--mode=plot --workdir=", "--workdir= cannot", "give "),
    "train at nobody": (f"{TRAIN} --workdir=~no-one/x", "--workdir=~no-one/x", "give "),
    "train in a name of bytes": (f"{TRAIN} --workdir=\udcff", "\\udcff", "give "),
    "nothing left to train on": (
        f"{TRAIN} --workdir=new --validation_fraction=0.9999",
        "--validation_fraction=0.9999", "lower",
    ),
}  # fmt: skip
# id, which begins with the mode -> (file of a run, its content, what the line says);
# None is for no such file, ... for a folder.
RUN_FILES = {
    "evaluate: config is a folder": ("config.json", ..., "restore"),
    "evaluate: config of nothing": ("config.json", b"{}", "restore"),
    "plot: config of nothing": ("config.json", b"{}", "restore"),
    "evaluate: config too deep": ("config.json", b"[" * 9**5, "restore"),
    "evaluate: list for a config": ("config.json", b"[1]", "restore"),
    "evaluate: no checkpoints": ("checkpoints", None, "train first"),
    "plot: list for a config": ("config.json", b"[1]", "restore"),
    "plot: config without model": ("config.json", b'{"seed": 0}', "restore"),
    "plot: list for an epoch": ("metrics.jsonl", b"[1]\n", "restore"),
    "plot: epoch of no loss": ("metrics.jsonl", b'{"epoch": 1}\n', "restore"),
    "plot: list for a result": ("result.json", b"[]", "restore"),
    "plot: result of nothing": ("result.json", b"{}", "restore"),
    "plot: figures in the way": ("figures", b"", "give "),
}


@pytest.mark.parametrize("arguments, told", table(FOLDERS))
def test_unusable_folder(launch, here, arguments, told):
    assert_told(launch, here, arguments.split(), "error: ", *told)


@pytest.mark.parametrize("file, told", table(RUN_FILES))
def test_damaged_file_of_a_run(launch, here, request, file, told):
    content, remedy = told
    mode = request.node.callspec.id.partition(":")[0]
    with changed_run(here, {}) as workdir:
        path = workdir / file
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        if content is ...:
            path.mkdir()
        elif content is not None:
            path.write_bytes(content)
        arguments = [f"--mode={mode}", "--workdir=changed"]
        assert_told(launch, here, arguments, "error: ", f"changed/{file}", remedy)


def test_names_that_the_figures_cannot_show_serve(launch, here):
    shutil.copy(here / "digit.png", here / "文字 7.png")
    done = launch(*PREDICT.split(), "--images=文字 7.png", cwd=here)
    assert (done.code, done.errors) == (0, "")
