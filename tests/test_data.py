import dataclasses
import gzip
import hashlib
import http.server
import json
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
from urllib.parse import urlsplit

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from mnist_jax import data, digests
from mnist_jax.data import DATASETS, DatasetError, Source, download, idx, originals

NUM_TRAIN, NUM_TEST = 300, 120
ROOT = Path(__file__).resolve().parents[1]
# Above the 3 to 7 s that are waited for, and below the time that a server hangs.
GENEROUS_SECONDS, HANG_SECONDS = 120, 300


def idx_bytes(array: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


def small_arrays(seed: int = 0, size=(28, 28), num_classes=10) -> dict[str, np.ndarray]:
    """As in the IDX files: without a channel axis, labels as uint8."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for part, count in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        images = rng.integers(0, 256, (count, *size), np.uint8)
        images[0], images[1] = 0, 255
        arrays[f"{part}_images"] = images
        arrays[f"{part}_labels"] = rng.integers(0, num_classes, count, np.uint8)
    return arrays


def small_files(*args, **kwargs) -> dict[str, bytes]:
    """File name (.gz) -> content; arguments as for `small_arrays`."""
    return {
        f"{idx.FILES[part]}.gz": gzip.compress(idx_bytes(array), mtime=0)
        for part, array in small_arrays(*args, **kwargs).items()
    }


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def assert_holds(dataset: data.Dataset, arrays: dict[str, np.ndarray]):
    ours = {part: getattr(dataset, part) for part in arrays}
    for part, array in arrays.items():
        if array.ndim == 3:
            assert ours[part].dtype == np.uint8
            np.testing.assert_array_equal(ours[part][..., 0], array)
        else:
            assert ours[part].dtype == np.int32
            np.testing.assert_array_equal(ours[part], array)
    assert dataset.sha256 == digests.of_arrays(ours)


def assert_small(dataset: data.Dataset, name: str = "mnist", seed: int = 0):
    assert dataset.name == name
    assert_holds(dataset, small_arrays(seed))


def error_of(function, *args) -> str:
    """The one line of the DatasetError that a call raises."""
    with pytest.raises(DatasetError) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(autouse=True)
def no_settings_of_the_user(monkeypatch):
    for variable in list(os.environ):
        if variable.lower().endswith("_proxy") or variable == "MNIST_RAW_DIR":
            monkeypatch.delenv(variable)


@pytest.fixture
def raw_dir(tmp_path) -> Path:
    return write_files(tmp_path / "raw", small_files())


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
            DATASETS[name], base_urls=base_urls, checksums=str(path)
        )
        monkeypatch.setitem(DATASETS, name, small)

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
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
    )


@pytest.fixture
def mirror():
    """Starts a server; `fault` befalls `file`, the other files are served well.

    A fault that begins with http or / is where the file is redirected.
    """
    servers = []
    over = threading.Event()

    def start(fault: str = "", file: str = "train-images-idx3-ubyte.gz") -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path.rpartition("/")[2]
                struck = fault if file in (name, "every") else ""
                content = small_files(seed=struck == "wrong")[name]
                if struck.isdigit():
                    return self.send_error(int(struck))
                if struck == "silent":
                    over.wait(HANG_SECONDS)
                if struck.startswith(("http", "/")) and "/there/" not in self.path:
                    self.send_response(302)
                    self.send_header("Location", struck + name)
                    content = b""
                else:
                    self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if struck in ("truncated", "stalled"):
                    content = content[: len(content) // 2]
                self.wfile.write(content)
                if struck == "stalled":
                    over.wait(HANG_SECONDS)

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
    assert_small(dataset := data.load("mnist", empty_dir))
    assert dataset.provenance == f"downloaded from {url}, SHA-256 verified"
    assert os.listdir(empty_dir) == ["mnist_jax_idx"]


@pytest.mark.parametrize(
    ("fault", "file", "reason"),
    [
        ("404", "train-images-idx3-ubyte.gz", "HTTP 404"),
        ("503", "every", "HTTP 503"),
        ("truncated", "train-images-idx3-ubyte.gz", "connection broken"),
        ("wrong", "t10k-images-idx3-ubyte.gz", "SHA-256 differs"),
        ("stalled", "train-images-idx3-ubyte.gz", "timed out"),
        ("silent", "train-labels-idx1-ubyte.gz", "timed out"),
        ("silent", "every", "timed out"),
    ],
)
def test_failed_download_is_one_line_and_leaves_nothing(
    mirror, publish, empty_dir, monkeypatch, fault, file, reason
):
    monkeypatch.setattr(download, "READ_SECONDS", 0.5)
    urls = mirror(fault, file), mirror(fault, file)
    publish(*urls)
    start = time.monotonic()
    error = error_of(data.load, "mnist", empty_dir)
    assert time.monotonic() - start < GENEROUS_SECONDS
    assert all(url in error for url in urls) and error.count(reason) == 2
    assert not os.listdir(empty_dir)

    publish(mirror())
    assert_small(data.load("mnist", empty_dir))


@pytest.mark.parametrize("fault", ["503", "truncated", "wrong"])
def test_second_mirror_is_used_when_the_first_fails(mirror, publish, empty_dir, fault):
    bad, good = mirror(fault), mirror()
    publish(bad, good)
    dataset = data.load("mnist", empty_dir)
    assert_small(dataset)
    assert dataset.provenance == f"downloaded from {good}, SHA-256 verified"


def test_name_lookup_that_hangs_does_not_hold_up_the_error(
    publish, empty_dir, monkeypatch
):
    over = threading.Event()

    def hang(*args, **kwargs):
        over.wait(HANG_SECONDS)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    publish("https://a.invalid/", "https://b.invalid/")
    start = time.monotonic()
    error = error_of(data.load, "mnist", empty_dir)
    assert time.monotonic() - start < GENEROUS_SECONDS
    over.set()
    assert "a.invalid/: timed out; https://b.invalid/: timed out" in error


@pytest.mark.parametrize("host", ["192.0.2.1", "127.0.0.1@a.invalid"])
@pytest.mark.parametrize(
    "file", ["t10k-labels-idx1-ubyte.gz", "train-images-idx3-ubyte.gz"]
)
def test_redirect_to_http_is_refused(mirror, publish, empty_dir, file, host):
    publish(mirror(f"http://{host}/", file))
    error = error_of(data.load, "mnist", empty_dir)
    assert f"http://{host} refused, expected https" in error
    assert not os.listdir(empty_dir)


def test_redirect_within_this_machine_is_followed(mirror, publish, empty_dir):
    publish(mirror("/there/", "every"))
    assert_small(data.load("mnist", empty_dir))


DOWNLOAD = """
import dataclasses, sys
from mnist_jax import data
data_dir, url, checksums = sys.argv[1:]
data.DATASETS["mnist"] = dataclasses.replace(
    data.DATASETS["mnist"], base_urls=(url,), checksums=checksums)
try:
    data.load("mnist", data_dir)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_interrupt_of_a_stalled_download_ends_at_once(
    mirror, publish, empty_dir, tmp_path
):
    publish()
    url = mirror("stalled")
    process = run_python(DOWNLOAD, empty_dir, url, tmp_path / "checksums.txt")
    while not list(empty_dir.rglob("train-images*.gz")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=GENEROUS_SECONDS)
    assert (process.returncode, output) == (0, "interrupted\n"), errors
    assert not os.listdir(empty_dir)


def test_every_download_is_https_and_has_sums_of_its_own():
    sums = []
    for source in DATASETS.values():
        assert all(urlsplit(url).scheme == "https" for url in source.base_urls)
        if source.base_urls:
            recorded = originals.recorded_sums(source)
            sums += [recorded[f"{stem}.gz"] for stem in idx.FILES.values()]
    assert all(len(bytes.fromhex(checksum)) == 32 for checksum in sums)
    assert len(sums) == len(set(sums)) == 12


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
    assert data.NAMES == ("auto", "mnist", "fashion_mnist", "kmnist", "digits")
    error = error_of(data.load, "cifar")
    assert error == f"unknown data set 'cifar'; expected one of {', '.join(data.NAMES)}"


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


def test_digits_are_the_same_everywhere_and_keep_shape_and_label(data_dir):
    """Averaged back to 8x8 an image is close to its original, label included."""
    import sklearn.datasets

    dataset = data.load("digits")
    # The fixture sets TFDS_DATA_DIR.
    assert (data_dir / "mnist_jax_digits" / "1.0.0" / "dataset_info.json").exists()
    expected = "d072f28b2d9f3709d5ed5bef8e48f4d7c73a41f2298831db1cd525b7e30eecbe"
    assert dataset.sha256 == expected
    assert dataset.train_images.shape == (1400, 28, 28, 1)
    assert dataset.test_images.shape == (397, 28, 28, 1)
    assert dataset.provenance.endswith("SHA-256 verified")

    original = sklearn.datasets.load_digits()
    box = dataset.test_images[:, 4:24, 4:24, 0].astype(float)
    halves = box.repeat(2, 1).repeat(2, 2).reshape(-1, 8, 5, 8, 5).mean((2, 4))
    distances = halves.reshape(-1, 1, 64) * (16 / 255) - original.data
    nearest = np.square(distances).sum(-1).argmin(1)
    assert len(set(nearest)) == 397
    np.testing.assert_array_equal(original.target[nearest], dataset.test_labels)


NO_TENSORFLOW = """
import sys
from mnist_jax import data
assert "tensorflow_datasets" not in sys.modules and "sklearn" not in sys.modules
assert data.load("digits", sys.argv[1]).name == "digits"
assert "tensorflow_datasets" in sys.modules
assert "tensorflow" not in sys.modules
"""


def test_tensorflow_is_not_imported_and_nothing_is_printed(empty_dir):
    process = run_python(NO_TENSORFLOW, empty_dir)
    assert process.communicate(timeout=GENEROUS_SECONDS) == ("", "")
    assert process.returncode == 0


@hypothesis.given(
    labels=st.lists(st.integers(0, 9), max_size=200),
    fraction=st.floats(0, 0.99),
    seed=st.integers(0, 2**32),
)
@hypothesis.settings(deadline=None)
def test_validation_split_is_proportional_disjoint_and_covering(labels, fraction, seed):
    labels = np.array(labels, int)
    train, validation = data.split_validation(labels, fraction, seed)
    assert len(validation) == round(fraction * len(labels))
    np.testing.assert_array_equal(
        np.sort(np.concatenate([train, validation])), np.arange(len(labels))
    )
    sizes = np.bincount(labels, minlength=10)
    taken = np.bincount(labels[validation], minlength=10)
    assert np.all(np.abs(taken - fraction * sizes) < 1)
    again = data.split_validation(labels, fraction, seed)
    np.testing.assert_array_equal(again[0], train)


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, float("nan")])
def test_validation_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        data.split_validation(np.arange(10), fraction, seed=0)


def test_mnist_is_the_published_one(mnist_raw_dir, data_dir):
    dataset = data.load("mnist", data_dir, mnist_raw_dir)
    assert dataset.train_images.shape == (60000, 28, 28, 1)
    assert dataset.test_images.shape == (10000, 28, 28, 1)
    assert dataset.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert dataset.test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    expected = "465499de1d5be89f22372774b5eb2d232ebd6289cbd0285d29e4414e466a68d8"
    assert dataset.sha256 == expected
