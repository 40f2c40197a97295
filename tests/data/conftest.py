"""Folders of raw and prepared files, and mirrors that serve them, well or badly."""

import dataclasses
import hashlib
import http.server
import os
import socket
import threading
from pathlib import Path

import pytest
from small_data import HANG_SECONDS, small_files, write_files

from mnist_jax.data import DATASETS


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
