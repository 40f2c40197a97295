"""`--mode=serve` as a person starts it: its port, its end, wrong command lines."""

import re
import signal
import socket
import urllib.error
import urllib.request

import pytest
from runs_of_launch import finish, start

from mnist_jax import training
from mnist_jax.config import make_config

pytest.importorskip("starlette")

# A proxy of the user's finds no server here.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("server") / "linear"
    config = make_config("linear", "digits", epochs=1, num_devices=1)
    training.train_and_evaluate(config, path)
    return path


def _start(workdir, tmp_path, port=0):
    """(process, its URL), once it answers."""
    server = start(
        "--mode=serve", f"--workdir={workdir}", f"--port={port}", cwd=tmp_path
    )
    lines = []
    for line in server.stdout:
        lines.append(line)
        if found := re.match(r"serving at (http://127\.0\.0\.1:\d+) ", line):
            return server, found[1]
    pytest.fail(f"it ended: {lines} {server.stderr.read()}")


def _get(url):
    with _OPENER.open(url, timeout=60) as response:
        return response.status, response.read()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_a_signal_ends_it(workdir, tmp_path, number):
    server, url = _start(workdir, tmp_path)
    status, page = _get(f"{url}/")
    assert status == 200 and b"<canvas" in page
    server.send_signal(number)
    [(code, _, errors)] = finish([server])
    assert code == 128 + number
    name = number.name
    assert errors == f"stopped by {name}; the same command starts again\n"


@pytest.mark.slow
def test_a_taken_port_is_told_and_can_be_had_again(workdir, tmp_path):
    server, url = _start(workdir, tmp_path)
    port = url.rpartition(":")[2]
    second = start(
        "--mode=serve", f"--workdir={workdir}", f"--port={port}", cwd=tmp_path
    )
    [(code, output, errors)] = finish([second])
    assert (code, output) == (1, "")
    assert re.fullmatch(f"error: --port={port}: .*: give another.*\n", errors)
    assert _get(f"{url}/runs")[0] == 200  # the first goes on
    server.send_signal(signal.SIGINT)
    finish([server])
    third, _ = _start(workdir, tmp_path, port)
    third.send_signal(signal.SIGINT)
    assert finish([third])[0][0] == 130


def test_a_request_that_never_ends_does_not_keep_others_waiting(workdir, tmp_path):
    server, url = _start(workdir, tmp_path)
    place = "127.0.0.1", int(url.rpartition(":")[2])
    with socket.create_connection(place) as half:
        half.sendall(
            b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Content-Type: image/png\r\nContent-Length: 1000\r\n\r\nhalf"
        )
        assert _get(f"{url}/runs")[0] == 200
        server.send_signal(signal.SIGINT)
        assert finish([server])[0][0] == 130


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--mode=serve needs --workdir"),
        (["--workdir=nowhere"], "--workdir=nowhere holds no run"),
        (["--workdir=,"], "--workdir is empty"),
        (["--workdir=x", "--images=a.png"], "--images has no effect"),
        (["--workdir=x", "--epochs=3"], "--epochs has no effect"),
        (["--workdir=x", "--port=99999"], "port"),
    ],
)
def test_wrong_flags_are_told_in_a_line(run_launch, tmp_path, flags, message):
    _, errors = run_launch("--mode=serve", *flags, cwd=tmp_path, code=1)
    assert message in errors and "Traceback" not in errors


def test_flags_of_other_modes_are_refused_in_training(run_launch, tmp_path):
    for flag, mode in (("port=1", "serve"), ("output=a.csv", "predict")):
        _, errors = run_launch(f"--{flag}", cwd=tmp_path, code=1)
        assert f"has no effect without --mode={mode}" in errors
