"""Downloads from servers on this machine, and what can befall them."""

import os
import signal
import socket
import threading
import time
from urllib.parse import urlsplit

import pytest
from small_data import (
    GENEROUS_SECONDS,
    HANG_SECONDS,
    assert_small,
    error_of,
    run_python,
)

from mnist_jax import data
from mnist_jax.data import DATASETS, download, idx, originals


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
