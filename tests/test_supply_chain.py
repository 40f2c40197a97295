"""What comes from elsewhere is checked and read, and never run."""

import ast
import dataclasses
import gzip
import hashlib
import http.server
import importlib.util
import io
import os
import pickle
import shutil
import socket
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from urllib.parse import urlsplit

import jax
import numpy as np
import optax
import pytest
from test_datasets import small_files
from test_records import PREDICTIONS

from mnist_jax import datasets, models, records, step
from mnist_jax.checkpoints import CheckpointError, Checkpoints
from mnist_jax.config import ConfigError, make_config
from mnist_jax.datasets import DatasetError, idx
from mnist_jax.datasets.descriptions import IDX_SETS
from mnist_jax.train.lanes import Lanes

ROOT = Path(__file__).parents[1]
SOURCES = [
    ROOT / "launch.py",
    *sorted((ROOT / "mnist_jax").rglob("*.py")),
    *sorted((ROOT / "experiments").rglob("*.py")),
]

# Their formats run what they hold.
FORMATS = {
    "_pickle",
    "cloudpickle",
    "dill",
    "joblib",
    "marshal",
    "pickle",
    "shelve",
}
BUILTINS = {"eval", "exec", "compile", "__import__"}
CALLS = {
    "asyncio.create_subprocess_shell",
    "os.popen",
    "os.system",
    "shutil.unpack_archive",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "yaml.load",
    "yaml.unsafe_load",
    *(f"builtins.{name}" for name in BUILTINS),
}
METHODS = {"extract", "extractall"}


def dangers(text, may_start_programs=True):
    """What a source file does that could run what it reads."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module]
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in names if name in CALLS | {"numpy.load"})
        else:
            modules = []
        for module in modules:
            top = module.split(".")[0]
            if top in FORMATS or (top == "subprocess" and not may_start_programs):
                yield f"import {module}"
        if isinstance(node, ast.Call):
            yield from dangers_of_call(node)


def dangers_of_call(node):
    name = ast.unparse(node.func)
    keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
    method = isinstance(node.func, ast.Attribute) and node.func.attr in METHODS
    if name in CALLS | BUILTINS or method:
        yield name
    if keywords.get("shell", "False") != "False":
        yield f"{name} with a shell"
    least = None if name in ("np.load", "numpy.load") else "False"
    if keywords.get("allow_pickle", least) != "False":
        yield f"{name} with pickle"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_runs_what_it_reads(path):
    may_start_programs = ROOT / "experiments" in path.parents
    assert not list(dangers(path.read_text(), may_start_programs))


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "import os, dill as d",
        "from joblib import load",
        "import marshal.x",
        "eval('1')",
        "x = [exec(y) for y in z]",
        "compile('1', '', 'eval')",
        "__import__('x')",
        "builtins.eval('1')",
        "from builtins import exec",
        "np.load(x)",
        "np.load(x, allow_pickle=True)",
        "np.load(x, allow_pickle=flag)",
        "numpy.load(x)",
        "from numpy import load",
        "np.save(x, y, allow_pickle=True)",
        "os.system('ls')",
        "from os import system",
        "subprocess.run('ls', shell=True)",
        "Popen(x, shell=shell)",
        "subprocess.getoutput('ls')",
        "yaml.load(x)",
        "tarfile.open(x).extractall()",
        "archive.extract(x, y)",
        "shutil.unpack_archive(x)",
    ],
)
def test_what_would_run_is_noticed(text):
    assert list(dangers(text))


@pytest.mark.parametrize(
    "text",
    [
        "np.load(x, allow_pickle=False)",
        "json.load(x)",
        "re.compile(x)",
        "program.lower().compile()",
        "import subprocess\nsubprocess.run(['ls'], shell=False)",
    ],
)
def test_what_would_not_run_is_left_alone(text):
    assert not list(dangers(text))


def test_a_program_started_by_the_package_is_noticed():
    assert list(dangers("import subprocess", may_start_programs=False))


def test_every_download_is_https_and_has_a_sum_of_its_own(tmp_path):
    from mnist_jax.datasets.builders import MnistJaxIdx

    sums = set()
    for name, about in IDX_SETS.items():
        infos = MnistJaxIdx(data_dir=tmp_path, config=name).url_infos
        for base_url in about.base_urls:
            assert urlsplit(base_url).scheme == "https"
            recorded = [infos[f"{base_url}{stem}.gz"] for stem in idx.FILES.values()]
            assert all(len(bytes.fromhex(info.checksum)) == 32 for info in recorded)
            sums |= {(name, info.checksum) for info in recorded}
    assert len(sums) == len({checksum for _, checksum in sums}) == 12


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """(files, redirects, headers) -> the URL at which 'mnist' is now published."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    servers = []

    def serve(files, redirects=None, headers=None):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path.rpartition("/")[2]
                target = (redirects or {}).get(name)
                if target and not self.path.startswith("/there/"):
                    self.send_response(302)
                    self.send_header("Location", target)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(files[name])))
                for header in (headers or {}).items():
                    self.send_header(*header)
                self.end_headers()
                self.wfile.write(files[name])

            def log_message(self, *arguments):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        servers.append(server)
        lines = [
            f"https://elsewhere/{name}\t{len(content)}\t"
            f"{hashlib.sha256(content).hexdigest()}\t{name}\n"
            for name, content in files.items()
        ]
        checksums = tmp_path / "checksums.txt"
        checksums.write_text("".join(lines))
        url = f"http://127.0.0.1:{server.server_port}/"
        published = dataclasses.replace(
            IDX_SETS["mnist"], base_urls=(url,), checksums=str(checksums)
        )
        monkeypatch.setitem(IDX_SETS, "mnist", published)
        return url

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def connections(monkeypatch):
    """The hosts that anything in this process connects to."""
    hosts, connect = [], socket.socket.connect

    def noted_connect(self, address):
        hosts.append(address[0])
        if address[0] != "127.0.0.1":
            raise OSError("not in a test")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", noted_connect)
    return hosts


# The first is asked for to see which mirrors answer, the second only when it is wanted.
@pytest.mark.parametrize("name", ["t10k-labels-idx1-ubyte", "train-images-idx3-ubyte"])
@pytest.mark.parametrize(
    "host", ["192.0.2.1", "127.0.0.1.invalid", "127.0.0.1@a.invalid"]
)
def test_a_redirection_off_https_is_refused_unasked(
    serve, connections, tmp_path, name, host
):
    serve(small_files(), {f"{name}.gz": f"http://{host}/{name}.gz"})
    with pytest.raises(DatasetError) as caught:
        datasets.load("mnist", tmp_path / "data")
    assert f"http://{host} refused, expected https" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert set(connections) == {"127.0.0.1"}
    assert not list((tmp_path / "data").iterdir())


@pytest.mark.parametrize("name", ["t10k-labels-idx1-ubyte", "train-images-idx3-ubyte"])
def test_a_redirection_to_https_is_followed(serve, connections, tmp_path, name):
    serve(small_files(), {f"{name}.gz": f"https://192.0.2.1/{name}.gz"})
    with pytest.raises(DatasetError, match="no connection"):
        datasets.load("mnist", tmp_path / "data")
    assert "192.0.2.1" in connections


def test_a_redirection_within_this_machine_is_followed(serve, tmp_path):
    redirects = {name: f"/there/{name}" for name in small_files()}
    serve(small_files(), redirects)
    assert len(datasets.load("mnist", tmp_path / "data").train_labels) == 300


def named_gzip(content, name):
    """Gzip data whose header carries a file name, which `gzip` would cut."""
    deflate = zlib.compressobj(wbits=-15)
    header = b"\x1f\x8b\x08\x08" + bytes(6) + name.encode() + b"\0"
    trailer = struct.pack("<II", zlib.crc32(content), len(content))
    return header + deflate.compress(content) + deflate.flush() + trailer


@pytest.mark.parametrize("outside", ["../../outside", "{folder}/outside"])
@pytest.mark.parametrize("downloaded", [False, True])
def test_names_inside_the_files_lead_nowhere(
    serve, tmp_path, monkeypatch, downloaded, outside
):
    outside = outside.format(folder=tmp_path)
    files = {
        name: named_gzip(gzip.decompress(content), outside)
        for name, content in small_files().items()
    }
    raw_dir, data_dir, here = (
        tmp_path / f"a/b/{name}" for name in ("raw", "data", "c")
    )
    for folder in (raw_dir, data_dir, here):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    if downloaded:
        serve(
            files, headers={"Content-Disposition": f'attachment; filename="{outside}"'}
        )
    else:
        for name, content in files.items():
            (raw_dir / name).write_bytes(content)
    before = {*tmp_path.rglob("*")}
    dataset = datasets.load("mnist", data_dir, None if downloaded else raw_dir)
    assert len(dataset.train_labels) == 300
    new = {*tmp_path.rglob("*")} - before
    assert new and all(data_dir in path.parents for path in new)
    assert not any(path.name == "outside" for path in new)


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def bomb(tmp_path):
    """A pickle that makes tmp_path/marker, which was seen to; it must not appear."""
    marker = tmp_path / "marker"
    content = pickle.dumps(Bomb(marker), protocol=2)
    pickle.loads(content).close()
    assert marker.exists()
    marker.unlink()
    yield Bomb(marker)
    assert not marker.exists()


def npz(arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def contents(bomb, arrays):
    """Files that a careless reader of arrays would run: pickles, or with one inside."""
    yield pickle.dumps(bomb, protocol=2)
    yield pickle.dumps(bomb, protocol=0)
    for name in arrays:
        yield npz({**arrays, name: np.array([bomb], object)})


def mined(folder, copy):
    """Yields each file of a folder, alone and then all, to be replaced in a copy."""
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    assert paths
    for chosen in [*([path] for path in paths), paths]:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        yield [copy / path for path in chosen]


def test_a_checkpoint_runs_nothing(bomb, tmp_path):
    model, optimizer = models.MLP(hidden_sizes=(8,)), optax.adam(1e-3)
    state = step.init_state(model, optimizer, 0)
    items = state.params, {"opt_state": state.opt_state, "step": state.step}
    with Checkpoints(tmp_path / "whole") as checkpoints:
        checkpoints.save(7, *items)
    blank = jax.tree.map(np.zeros_like, items)
    refused = 0
    for paths in mined(tmp_path / "whole", tmp_path / "run"):
        for path in paths:
            path.write_bytes(pickle.dumps(bomb, protocol=2))
        try:
            with Checkpoints(tmp_path / "run") as checkpoints:
                got = checkpoints.restore(*blank)[:2]
        except CheckpointError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            jax.tree.map(np.testing.assert_array_equal, got, items)
    assert refused >= 3, "the params, the rest and all"


def test_predictions_run_nothing(bomb, tmp_path):
    for content in contents(bomb, PREDICTIONS._asdict()):
        (tmp_path / records.PREDICTIONS).write_bytes(content)
        with pytest.raises(records.RecordsError, match="is damaged"):
            records.read_predictions(tmp_path)


def test_saved_lanes_run_nothing(bomb, tmp_path, data_dir):
    config = make_config("linear", "digits", data_dir=str(data_dir))
    lanes, path = Lanes([config]), tmp_path / "0.npz"
    lanes.save([path])
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    for content in contents(bomb, arrays):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="cannot be read"):
            lanes.restore([path], 1)


@pytest.fixture
def prepared(tmp_path):
    """The folder of a small prepared data set."""
    raw_dir = tmp_path / "raw"
    raw_dir.mkdir()
    for name, content in small_files().items():
        (raw_dir / name).write_bytes(content)
    datasets.prepare("kmnist", tmp_path / "whole", raw_dir)
    return tmp_path / "whole"


def test_prepared_data_run_nothing(bomb, prepared, tmp_path):
    expected = datasets.load("kmnist", prepared)
    refused = 0
    for paths in mined(prepared, tmp_path / "data"):
        for path in paths:
            path.write_bytes(pickle.dumps(bomb, protocol=2))
        try:
            got = datasets.load("kmnist", tmp_path / "data")
        except DatasetError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            for ours, theirs in zip(got, expected, strict=True):
                np.testing.assert_array_equal(ours, theirs)
    assert refused >= 3, "the images, their form and all"


@pytest.mark.parametrize("name", ["pythonClassName", "python_class_name", "type"])
def test_prepared_data_name_no_module_to_import(prepared, tmp_path, monkeypatch, name):
    (tmp_path / "mine.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.util.find_spec("mine")
    [path] = prepared.rglob("features.json")
    path.write_text(f'{{"{name}": "mine.Feature", "content": {{}}}}')
    with pytest.raises(DatasetError, match="features.json names 'mine.Feature'"):
        datasets.load("kmnist", prepared)
    assert "mine" not in sys.modules


def test_the_installed_packages_fit_together():
    if importlib.util.find_spec("pip") is None:
        pytest.skip("pip is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "check"],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
