import dataclasses
import gzip
import hashlib
import http.server
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from mnist_jax import datasets
from mnist_jax.datasets import DatasetError, idx
from mnist_jax.datasets import prepared as prepared_module
from mnist_jax.datasets.descriptions import IDX_SETS
from mnist_jax.train import Interrupted

NUM_TRAIN, NUM_TEST = 300, 120
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
REPOSITORY = Path(__file__).resolve().parents[1]


def idx_bytes(array: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


def small_arrays(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    arrays = {}
    for part, count in (("train", NUM_TRAIN), ("t10k", NUM_TEST)):
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        images[0], images[1] = 0, 255
        arrays[f"{part}-images-idx3-ubyte"] = images
        arrays[f"{part}-labels-idx1-ubyte"] = rng.integers(0, 10, count, np.uint8)
    return arrays


def small_files(seed: int = 0) -> dict[str, bytes]:
    """File name (.gz) -> content."""
    return {
        f"{name}.gz": gzip.compress(idx_bytes(array), mtime=0)
        for name, array in small_arrays(seed).items()
    }


def assert_small(dataset: datasets.Dataset, name: str = "mnist", seed: int = 0):
    arrays = small_arrays(seed)
    assert dataset.name == name
    for part, prefix in (("train", "train"), ("test", "t10k")):
        images = getattr(dataset, f"{part}_images")
        labels = getattr(dataset, f"{part}_labels")
        assert (images.dtype, labels.dtype) == (np.uint8, np.int32)
        np.testing.assert_array_equal(
            images, arrays[f"{prefix}-images-idx3-ubyte"][..., np.newaxis]
        )
        np.testing.assert_array_equal(labels, arrays[f"{prefix}-labels-idx1-ubyte"])


@pytest.fixture
def raw_dir(tmp_path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    for name, content in small_files().items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def empty_dir(tmp_path) -> Path:
    """A data_dir of the test's own."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Makes the small set the one that 'mnist' stands for, at the given URLs."""

    def publish(*base_urls: str, name: str = "mnist") -> None:
        lines = [
            f"https://elsewhere/{file}\t{len(content)}\t"
            f"{hashlib.sha256(content).hexdigest()}\t{file}\n"
            for file, content in small_files().items()
        ]
        path = tmp_path / "checksums.txt"
        path.write_text("".join(lines))
        small = dataclasses.replace(
            IDX_SETS[name], base_urls=base_urls, checksums=str(path)
        )
        monkeypatch.setitem(IDX_SETS, name, small)

    return publish


@pytest.fixture
def unreachable(publish) -> None:
    """No mirror listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    publish(f"http://127.0.0.1:{port}/a/", f"http://127.0.0.1:{port}/b/")


def run_python(code: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ, PYTHONPATH=str(REPOSITORY)),
    )


@pytest.fixture
def mirror(monkeypatch):
    """Starts a server; `fault` befalls `file`, the other files are served well."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    servers = []
    over = threading.Event()

    def start(fault: str = "", file: str = "train-images-idx3-ubyte.gz") -> str:
        files = small_files()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path.rpartition("/")[2]
                content = files[name]
                struck = fault if file in (name, "every") else ""
                if struck.isdigit():
                    self.send_error(int(struck))
                    return
                if struck == "silent":
                    over.wait(60)
                    return
                if struck == "wrong":
                    content = small_files(seed=1)[name]
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if struck in ("truncated", "stalled"):
                    self.wfile.write(content[: len(content) // 2])
                    if struck == "stalled":
                        over.wait(60)
                    return
                self.wfile.write(content)

            def log_message(self, *args):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    over.set()
    for server in servers:
        server.shutdown()
        server.server_close()


def test_download_gives_the_published_images_and_labels(mirror, publish, empty_dir):
    url = mirror()
    publish(url)
    assert_small(dataset := datasets.load("mnist", empty_dir))
    assert dataset.provenance == f"downloaded from {url}, SHA-256 verified"
    assert os.listdir(empty_dir) == ["mnist_jax_idx"]


@pytest.mark.parametrize(
    ("fault", "file", "reason"),
    [
        ("404", "train-images-idx3-ubyte.gz", "HTTP 404"),
        ("503", "train-images-idx3-ubyte.gz", "HTTP 503"),
        ("404", "every", "HTTP 404"),
        ("truncated", "train-images-idx3-ubyte.gz", "connection broken"),
        ("wrong", "t10k-images-idx3-ubyte.gz", "SHA-256 differs"),
        ("stalled", "train-images-idx3-ubyte.gz", "no answer in time"),
        ("silent", "train-labels-idx1-ubyte.gz", "no answer in time"),
    ],
)
def test_failed_download_is_one_line_and_leaves_nothing(
    mirror, publish, empty_dir, fault, file, reason
):
    publish(mirror(fault, file))
    start = time.monotonic()
    with pytest.raises(DatasetError) as caught:
        datasets.load("mnist", empty_dir)
    assert time.monotonic() - start < 10
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not os.listdir(empty_dir)

    publish(mirror())
    assert_small(datasets.load("mnist", empty_dir))


@pytest.mark.parametrize("fault", ["503", "truncated", "wrong"])
def test_second_mirror_is_used_when_the_first_fails(mirror, publish, empty_dir, fault):
    bad, good = mirror(fault), mirror()
    publish(bad, good)
    dataset = datasets.load("mnist", empty_dir)
    assert_small(dataset)
    assert good in dataset.provenance


def test_mirrors_that_never_answer_are_noticed_within_five_seconds(
    mirror, publish, empty_dir
):
    publish(mirror("silent", "every"), mirror("silent", "every"))
    start = time.monotonic()
    with pytest.raises(DatasetError, match="no answer in time.*no answer in time"):
        datasets.prepare("mnist", empty_dir)
    assert time.monotonic() - start < 5
    assert not os.listdir(empty_dir)

    publish(mirror())
    assert_small(datasets.load("mnist", empty_dir))


DOWNLOAD = """
import dataclasses, sys
from mnist_jax import datasets
from mnist_jax.datasets.descriptions import IDX_SETS
data_dir, url, checksums = sys.argv[1:]
IDX_SETS["mnist"] = dataclasses.replace(
    IDX_SETS["mnist"], base_urls=(url,), checksums=checksums)
print("begin", flush=True)
try:
    datasets.load("mnist", data_dir)
except datasets.DatasetError:
    print("refused", flush=True)
"""


@pytest.mark.parametrize("interrupted", [False, True])
def test_stalled_server_does_not_hold_up_the_end_of_the_program(
    mirror, publish, empty_dir, tmp_path, interrupted
):
    publish()
    url = mirror("stalled")
    process = run_python(DOWNLOAD, empty_dir, url, tmp_path / "checksums.txt")
    assert process.stdout.readline() == "begin\n"
    start = time.monotonic()
    if interrupted:
        while not list(empty_dir.rglob("*.tmp.*/*")):
            assert time.monotonic() - start < 10
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert time.monotonic() - start < 10
    assert (process.returncode == 0, output == "refused\n") == (not interrupted,) * 2
    assert not os.listdir(empty_dir)


def unzipped(folder: Path) -> None:
    for path in list(folder.iterdir()):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()


def dotted(folder: Path) -> None:
    for path in list(folder.iterdir()):
        path.rename(folder / path.name.replace("-idx", ".idx"))


def dotted_and_unzipped(folder: Path) -> None:
    dotted(folder)
    unzipped(folder)


@pytest.mark.parametrize(
    "form", [lambda folder: None, unzipped, dotted, dotted_and_unzipped]
)
def test_raw_files_are_read_in_every_form(publish, raw_dir, empty_dir, form):
    publish()
    form(raw_dir)
    assert_small(datasets.load("mnist", empty_dir, raw_dir))


def test_provenance_says_whether_raw_files_are_the_published_ones(
    publish, raw_dir, tmp_path
):
    publish()
    original = datasets.load("mnist", tmp_path / "a", raw_dir).provenance
    assert original == f"raw files in {raw_dir}, SHA-256 verified"

    images = raw_dir / "train-images-idx3-ubyte.gz"
    images.write_bytes(gzip.compress(gzip.decompress(images.read_bytes()), mtime=7))
    regzipped = datasets.load("mnist", tmp_path / "b", raw_dir)
    assert_small(regzipped)
    expected = "SHA-256 NOT verified (train-images-idx3-ubyte.gz differs)"
    assert regzipped.provenance.endswith(expected)
    # Stored with the data: true of a later load that sees no raw files too.
    assert datasets.load("mnist", tmp_path / "b").provenance.endswith(expected)

    unzipped(raw_dir)
    plain = datasets.load("mnist", tmp_path / "c", raw_dir).provenance
    assert "SHA-256 NOT verified (train-images-idx3-ubyte is not gzipped" in plain


@pytest.mark.parametrize("name", ["fashion_mnist", "kmnist"])
def test_raw_dir_serves_the_named_set(publish, raw_dir, empty_dir, name):
    publish(name=name)
    dataset = datasets.load(name, empty_dir, raw_dir)
    assert_small(dataset, name)
    assert dataset.class_names == IDX_SETS[name].class_names
    assert len(set(dataset.class_names)) == 10


def cut(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def regzip(change):
    return lambda content: gzip.compress(change(gzip.decompress(content)))


def shape(new: tuple[int, ...]):
    def change(content: bytes) -> bytes:
        return content[:4] + struct.pack(f">{len(new)}I", *new) + content[16:]

    return regzip(change)


@pytest.mark.parametrize(
    ("file", "change", "expected"),
    [
        ("train-images-idx3-ubyte", cut, "bad gzip data"),
        ("t10k-labels-idx1-ubyte", cut, "bad gzip data"),
        ("train-images-idx3-ubyte", regzip(cut), "156794 bytes after the header"),
        ("train-images-idx3-ubyte", lambda c: gzip.decompress(c)[:-1], "235199 bytes"),
        ("train-images-idx3-ubyte", lambda c: b"<html>not found", "0x3c68746d"),
        ("train-images-idx3-ubyte", lambda c: c[:-6] + bytes(6), "bad gzip data"),
        ("t10k-images-idx3-ubyte", lambda c: b"", "empty; expected"),
        (
            "t10k-images-idx3-ubyte",
            lambda c: small_files()["t10k-labels-idx1-ubyte.gz"],
            "begins with 0x00000801; expected an IDX file of uint8 in 3",
        ),
        ("t10k-images-idx3-ubyte", shape((30, 56, 56)), "images of 56x56"),
        (
            "t10k-images-idx3-ubyte",
            shape((2**32 - 1,) * 3),
            "79228162458924105385300197375 bytes announced for 4294967295x4294967295x"
            "4294967295; expected at most 1073741824; replace it",
        ),
        ("t10k-labels-idx1-ubyte", shape((2**30 + 1,)), "1073741825 bytes announced"),
        ("t10k-images-idx3-ubyte", shape((2**20, 32, 32)), "94080 bytes after"),
        ("t10k-images-idx3-ubyte", shape((119, 28, 28)), "more than 93296 bytes after"),
        (
            "train-images-idx3-ubyte",
            lambda c: gzip.compress(idx_bytes(np.zeros((0, 28, 28), np.uint8))),
            "no images",
        ),
        (
            "train-labels-idx1-ubyte",
            lambda c: gzip.compress(idx_bytes(np.zeros(299, np.uint8))),
            "299 labels; expected 300",
        ),
        (
            "train-labels-idx1-ubyte",
            lambda c: gzip.compress(idx_bytes(np.full(300, 10, np.uint8))),
            "label 10; expected labels 0 to 9",
        ),
    ],
)
def test_damaged_raw_file_is_named_in_one_line(
    publish, raw_dir, empty_dir, file, change, expected
):
    publish()
    path = raw_dir / f"{file}.gz"
    good = path.read_bytes()
    path.write_bytes(change(good))
    with pytest.raises(DatasetError) as caught:
        datasets.load("mnist", empty_dir, raw_dir)
    assert str(caught.value).startswith(f"{path}: ")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not os.listdir(empty_dir)

    path.write_bytes(good)
    assert_small(datasets.load("mnist", empty_dir, raw_dir))


def bomb(header: bytes) -> bytes:
    """A gzip file of 3 MB that holds 3 GiB after the header."""
    return gzip.compress(header) + 192 * gzip.compress(bytes(2**24))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (idx_bytes(np.zeros((0, 28, 28), np.uint8)), "more than 0 bytes after"),
        (struct.pack(">4B3I", 0, 0, 8, 3, 9, 28, 28), "more than 7056 bytes after"),
        (struct.pack(">4B3I", 0, 0, 8, 3, 2**22, 28, 28), "3288334336 bytes announced"),
        (b"", "begins with 0x00000000"),
    ],
    ids=["no images", "few images", "as many as there are", "no header"],
)
def test_gzip_bomb_is_refused_before_it_fills_the_memory(
    raw_dir, empty_dir, header, expected
):
    (raw_dir / "t10k-images-idx3-ubyte.gz").write_bytes(bomb(header))
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError, match=expected):
            idx.read_splits(idx.require(raw_dir))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**25


def test_header_of_a_short_file_sets_no_memory_aside(raw_dir):
    announced = struct.pack(">4B3I", 0, 0, 8, 3, 2**20, 32, 32)
    (raw_dir / "t10k-images-idx3-ubyte.gz").write_bytes(announced)
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError, match="0 bytes after the header; expected"):
            idx.read_splits(idx.require(raw_dir))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**25


@pytest.mark.parametrize(
    ("name", "file"),
    [("mnist", FILES[0]), ("auto", FILES[1]), ("mnist", FILES[2]), ("auto", FILES[3])],
)
def test_missing_raw_file_is_named(publish, raw_dir, empty_dir, name, file):
    publish()
    (raw_dir / f"{file}.gz").unlink()
    with pytest.raises(DatasetError, match=f"{raw_dir}: {file} missing"):
        datasets.load(name, empty_dir, raw_dir)
    assert not os.listdir(empty_dir)


@pytest.mark.parametrize("name", ["mnist", "auto", "digits"])
@pytest.mark.parametrize("folder", ["nowhere", "n" * 300, "n" * 5000])
def test_raw_dir_that_does_not_exist_is_an_error_at_once(
    tmp_path, empty_dir, name, folder
):
    with pytest.raises(DatasetError, match="no such folder"):
        datasets.prepare(name, empty_dir, tmp_path / folder)


@pytest.mark.parametrize("flag", ["data_dir", "raw_dir"])
def test_home_of_nobody_is_named(flag):
    with pytest.raises(DatasetError, match="^~nobody_here/x: there is no such home"):
        datasets.prepare("digits", **{flag: "~nobody_here/x"})


@pytest.mark.parametrize("name", ["cifar", "auto", ""])
def test_class_names_of_an_unknown_set_are_refused(name):
    with pytest.raises(DatasetError, match=f"'{name}'; expected one of mnist, "):
        datasets.class_names(name)


def test_environment_names_the_raw_files_of_mnist_only(
    monkeypatch, publish, raw_dir, empty_dir
):
    publish()
    publish(name="kmnist")
    monkeypatch.setenv("MNIST_RAW_DIR", str(raw_dir))
    with pytest.raises(DatasetError, match="^kmnist: not prepared yet"):
        datasets.load("kmnist", empty_dir)
    assert_small(datasets.load("auto", empty_dir))


def test_environment_naming_an_empty_folder_leaves_the_download(
    monkeypatch, mirror, publish, empty_dir, tmp_path, caplog
):
    publish(mirror())
    monkeypatch.setenv("MNIST_RAW_DIR", str(tmp_path / "nowhere"))
    assert_small(datasets.load("auto", empty_dir))
    assert "MNIST_RAW_DIR" in caplog.text


def test_prepared_data_need_no_source(unreachable, raw_dir, empty_dir):
    datasets.prepare("mnist", empty_dir, raw_dir)
    shutil.rmtree(raw_dir)
    assert_small(datasets.load("auto", empty_dir))


def test_mnist_never_falls_back_and_names_the_three_ways(unreachable, empty_dir):
    with pytest.raises(DatasetError) as caught:
        datasets.load("mnist", empty_dir)
    for way in ("--data_dir", "--raw_dir", "MNIST_RAW_DIR", "network", "no connection"):
        assert way in str(caught.value)
    assert not os.listdir(empty_dir)


def test_auto_falls_back_to_digits_with_a_loud_warning(unreachable, empty_dir, caplog):
    assert datasets.load("auto", empty_dir).name == "digits"
    for words in ("NOT MNIST", "digits", "no connection", "--raw_dir"):
        assert words in caplog.text


def test_auto_reports_damaged_raw_files_of_the_environment(
    monkeypatch, publish, raw_dir, empty_dir, caplog
):
    publish()
    monkeypatch.setenv("MNIST_RAW_DIR", str(raw_dir))
    (raw_dir / "t10k-labels-idx1-ubyte.gz").write_bytes(b"")
    assert datasets.prepare("auto", empty_dir) == "digits"
    assert str(raw_dir / "t10k-labels-idx1-ubyte.gz") in caplog.text


def test_unknown_name_is_answered_with_the_list():
    with pytest.raises(DatasetError, match="'cifar'.*auto, mnist, fashion_mnist"):
        datasets.load("cifar")


def test_default_data_dir_is_that_of_tfds(data_dir):
    datasets.prepare("digits")
    assert (data_dir / "mnist_jax_digits" / "1.0.0" / "dataset_info.json").exists()


@pytest.fixture
def prepared(publish, raw_dir, empty_dir) -> Path:
    publish()
    datasets.prepare("mnist", empty_dir, raw_dir)
    return empty_dir / "mnist_jax_idx" / "mnist" / "1.0.0"


def test_fast_reading_equals_tfds_own_decoding(prepared, empty_dir):
    import tensorflow_datasets as tfds

    dataset = datasets.load("mnist", empty_dir)
    builder = tfds.builder_from_directory(prepared)
    assert builder.info.splits["train"].num_examples == NUM_TRAIN
    for part in ("train", "test"):
        examples = list(builder.as_data_source(part))
        np.testing.assert_array_equal(
            getattr(dataset, f"{part}_images"), [e["image"] for e in examples]
        )
        np.testing.assert_array_equal(
            getattr(dataset, f"{part}_labels"), [e["label"] for e in examples]
        )


def shard(folder: Path) -> Path:
    return folder / "mnist_jax_idx-train.array_record-00000-of-00001"


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: os.truncate(shard(d), 0),
        lambda d: os.truncate(shard(d), shard(d).stat().st_size // 2),
        lambda d: os.truncate(shard(d), shard(d).stat().st_size - 10),
        lambda d: shard(d).unlink(),
        lambda d: shard(d).write_bytes(bytes(shard(d).stat().st_size)),
        lambda d: (d / "dataset_info.json").write_text('{"name":'),
        lambda d: (d / "dataset_info.json").write_text("{}"),
        lambda d: (d / "dataset_info.json").unlink(),
        lambda d: (d / "features.json").unlink(),
        lambda d: (d / "metadata.json").unlink(),
        lambda d: (d / "metadata.json").write_text("?"),
        lambda d: (shutil.rmtree(d), d.mkdir()),
    ],
)
def test_damaged_prepared_files_are_named_with_the_remedy(
    prepared, empty_dir, raw_dir, damage
):
    damage(prepared)
    with pytest.raises(DatasetError) as caught:
        # No other data set takes the place of one that is there but damaged.
        datasets.load("auto", empty_dir)
    assert str(caught.value).startswith(f"{prepared}: ")
    assert "delete this folder" in str(caught.value)
    assert "\n" not in str(caught.value)

    shutil.rmtree(prepared)
    assert_small(datasets.load("mnist", empty_dir, raw_dir))


def test_an_interruption_is_not_taken_for_damage(prepared, empty_dir, monkeypatch):
    def interrupt(*arguments):
        raise Interrupted("stopped by SIGTERM", signal.SIGTERM)

    monkeypatch.setattr(prepared_module, "_decode", interrupt)
    with pytest.raises(Interrupted):
        datasets.load("mnist", empty_dir)


@pytest.mark.parametrize("name", ["digits", "auto"])
def test_data_dir_that_cannot_be_written_is_named(unreachable, tmp_path, name):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DatasetError, match=f"^{tmp_path}/file/data: cannot prepare"):
        datasets.load(name, tmp_path / "file" / "data")


LOAD_RAW = """
import sys
from mnist_jax import datasets
dataset = datasets.load("kmnist", *sys.argv[1:])
print(dataset.train_images.sum(), len(dataset.test_labels))
"""


def test_two_processes_may_prepare_at_once(raw_dir, empty_dir):
    processes = [run_python(LOAD_RAW, empty_dir, raw_dir) for _ in range(2)]
    total = small_arrays()["train-images-idx3-ubyte"].sum()
    for process in processes:
        output, errors = process.communicate(timeout=60)
        assert (process.returncode, output) == (0, f"{total} {NUM_TEST}\n"), errors
    assert os.listdir(empty_dir) == ["mnist_jax_idx"]
    assert os.listdir(empty_dir / "mnist_jax_idx" / "kmnist") == ["1.0.0"]


@pytest.fixture(scope="module")
def digits(data_dir) -> datasets.Dataset:
    return datasets.load("digits", data_dir)


def test_digits_have_the_form_of_mnist(digits):
    assert digits.train_images.shape == (1400, 28, 28, 1)
    assert digits.test_images.shape == (397, 28, 28, 1)
    assert digits.train_images.dtype == digits.test_images.dtype == np.uint8
    assert digits.train_labels.dtype == digits.test_labels.dtype == np.int32
    assert digits.class_names == tuple("0123456789")
    assert digits.provenance.endswith("SHA-256 verified")
    images = np.concatenate([digits.train_images, digits.test_images])
    # MNIST: the ink lies in the 20x20 box, mean 33.3, standard deviation 78.6.
    assert not images[:, :3].any() and not images[:, -3:].any()
    assert not images[:, :, :3].any() and not images[:, :, -3:].any()
    assert images.min() == 0 and images.max() == 255
    assert 30 < images.mean() < 38
    assert 74 < images.std() < 84


def test_digits_split_is_stratified_and_complete(digits):
    # Class sizes as scikit-learn documents them: 178, 182, 177, ...
    sizes = np.array([178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    test_sizes = np.bincount(digits.test_labels)
    np.testing.assert_array_equal(np.bincount(digits.train_labels) + test_sizes, sizes)
    assert np.abs(test_sizes - sizes * 397 / 1797).max() < 1


def test_digits_keep_their_shape_and_label(digits):
    """Averaged back to 8x8 an image is close to its original, label included."""
    import sklearn.datasets

    original = sklearn.datasets.load_digits()
    box = digits.test_images[:, 4:24, 4:24, 0].astype(float)
    halves = box.repeat(2, 1).repeat(2, 2).reshape(-1, 8, 5, 8, 5).mean((2, 4))
    distances = np.square(halves.reshape(-1, 1, 64) * (16 / 255) - original.data).sum(
        -1
    )
    nearest = distances.argmin(1)
    assert len(set(nearest)) == 397
    np.testing.assert_array_equal(original.target[nearest], digits.test_labels)


def test_digits_are_the_same_each_time(digits, empty_dir):
    again = datasets.load("digits", empty_dir)
    for ours, theirs in zip(digits, again, strict=True):
        np.testing.assert_array_equal(ours, theirs)


NO_TENSORFLOW = """
import sys
from mnist_jax import datasets
assert "tensorflow_datasets" not in sys.modules and "sklearn" not in sys.modules
assert datasets.load("digits", sys.argv[1]).name == "digits"
assert "tensorflow_datasets" in sys.modules
assert "tensorflow" not in sys.modules
"""


def test_tensorflow_is_not_imported_and_nothing_is_printed(empty_dir):
    process = run_python(NO_TENSORFLOW, empty_dir)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0


@hypothesis.given(
    labels=st.lists(st.integers(0, 9), max_size=200),
    fraction=st.floats(0, 0.99),
    seed=st.integers(0, 2**32),
)
@hypothesis.settings(deadline=None)
def test_validation_split_is_proportional_disjoint_and_covering(labels, fraction, seed):
    train, validation = datasets.split_validation(np.array(labels, int), fraction, seed)
    assert len(validation) == round(fraction * len(labels))
    np.testing.assert_array_equal(
        np.sort(np.concatenate([train, validation])), np.arange(len(labels))
    )
    sizes = np.bincount(np.array(labels, int), minlength=10)
    taken = np.bincount(np.array(labels, int)[validation], minlength=10)
    assert np.all(np.abs(taken - fraction * sizes) < 1)
    again = datasets.split_validation(np.array(labels, int), fraction, seed)
    np.testing.assert_array_equal(again[0], train)


def test_validation_split_by_hand():
    labels = np.repeat([0, 1, 2], [10, 20, 15])
    train, validation = datasets.split_validation(labels, 0.2, seed=3)
    np.testing.assert_array_equal(np.bincount(labels[validation]), [2, 4, 3])
    np.testing.assert_array_equal(np.bincount(labels[train]), [8, 16, 12])
    other = datasets.split_validation(labels, 0.2, seed=4)[1]
    assert not np.array_equal(validation, other)


def test_validation_split_of_nothing_is_empty():
    train, validation = datasets.split_validation(np.arange(10), 0, seed=0)
    np.testing.assert_array_equal(train, np.arange(10))
    assert validation.shape == (0,)


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, float("nan")])
def test_validation_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        datasets.split_validation(np.arange(10), fraction, seed=0)


def test_mnist_is_the_published_one(mnist_raw_dir, data_dir):
    dataset = datasets.load("mnist", data_dir, mnist_raw_dir)
    assert dataset.train_images.shape == (60000, 28, 28, 1)
    assert dataset.test_images.shape == (10000, 28, 28, 1)
    assert dataset.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert dataset.test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    for part, images in (
        ("train", dataset.train_images),
        ("t10k", dataset.test_images),
    ):
        path = next(mnist_raw_dir.glob(f"{part}-images?idx3-ubyte*"))
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        assert content[16:] == images.tobytes()


def test_mnist_is_read_back_in_under_two_seconds(mnist_raw_dir, data_dir):
    datasets.prepare("mnist", data_dir, mnist_raw_dir)
    # Of the processor: other programs on the machine do not count.
    start = time.process_time()
    datasets.load("mnist", data_dir)
    assert time.process_time() - start < 2
