"""What processes say to each other; `test_processes.py` has whole runs."""

import json
import os

import numpy as np
import pytest
from runs_of_launch import (
    ends,
    error_line,
    finish,
    free_address,
    start,
    start_python,
)

from mnist_jax.parallel import multihost
from mnist_jax.settings import ConfigError

DEVICES = "--xla_force_host_platform_device_count="


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (("host", 2, 0), "--coordinator_address=host: expected host:port"),
        (("host:port", 2, 0), "--coordinator_address=host:port: expected host:port"),
        (("h:99999", 2, 0), "--coordinator_address=h:99999: expected host:port"),
        (("h:1", None, 0), "--num_processes=None: expected"),
        (("h:1", 0, 0), "--num_processes=0: expected"),
        (("h:1", 2, None), "--process_id=None: expected"),
        (("h:1", 2, 2), "--process_id=2: expected .* from 0 to 1"),
        (("h:1", 2, -1), "--process_id=-1: expected"),
        ((None, 2, None), "--num_processes=2 needs --coordinator_address"),
        (
            ("auto", None, 1),
            "--process_id=1: expected none with --coord",
        ),
    ],
)
def test_flags_that_do_not_fit_are_told(arguments, expected):
    with pytest.raises(ConfigError, match=expected):
        multihost.initialize(*arguments)


def test_auto_outside_of_a_cluster_is_told(tmp_path, monkeypatch):
    clusters = ("SLURM", "OMPI", "PMIX", "KUBERNETES", "TPU", "CLOUD_TPU", "JOB_")
    for name in list(os.environ):
        if name.startswith(clusters):
            monkeypatch.delenv(name)
    run = start("--coordinator_address=auto", "--dataset=digits", cwd=tmp_path)
    [(status, errors)] = ends([run])
    assert status == 1
    assert "--coordinator_address=auto" in error_line(errors)


def test_by_itself_a_process_is_the_first_and_agrees_with_itself():
    assert multihost.is_main_process() and not multihost.is_multiprocess()
    assert multihost.all_max(3, False) == [3, False]
    tree = {"a": np.array([-0.0, 1.0])}
    assert multihost.broadcast(tree) is tree
    multihost.check_same("x")
    with pytest.raises(ConfigError, match="mine"):
        with multihost.propagate_errors((ConfigError,)):
            raise ConfigError("mine")


@pytest.mark.parametrize(
    "message",
    [
        "INTERNAL: Out of memory while trying to allocate 8589934592 bytes.",
        "RESOURCE_EXHAUSTED: Out of memory allocating 8589934592 bytes.",
        "UNKNOWN: Failed to determine best cudnn convolution algorithm",
        "INVALID_ARGUMENT: Executable expected parameter 0 of size 4",
    ],
)
def test_an_error_of_this_process_alone_keeps_its_own_message(monkeypatch, message):
    monkeypatch.setattr(multihost, "is_multiprocess", lambda: True)
    with pytest.raises(RuntimeError) as caught:
        with multihost.translate_lost_process():
            raise RuntimeError(message)
    assert str(caught.value) == message


LOST = [
    "FAILED_PRECONDITION: Gloo all-reduce failed: Connection closed by peer [::1]:80",
    "INTERNAL: NCCL operation ncclGroupEnd() failed: remote process exited",
    "UNAVAILABLE: failed to connect to all addresses",
    "DEADLINE_EXCEEDED: Timed out after 30 s",
    "ABORTED: The following tasks are unhealthy (stopped sending heartbeats)",
    "INTERNAL: Coordination service has stopped",
]


@pytest.mark.parametrize("message", LOST)
def test_an_error_about_another_process_says_so(monkeypatch, message):
    monkeypatch.setattr(multihost, "is_multiprocess", lambda: True)
    with pytest.raises(multihost.ProcessError, match="another of the") as caught:
        with multihost.translate_lost_process():
            raise ValueError(f"{message}\nand much more")
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert "without --overwrite, go on from the last checkpoint" in str(caught.value)
    # What a process by itself meets is no other's doing.
    monkeypatch.setattr(multihost, "is_multiprocess", lambda: False)
    with pytest.raises(ValueError, match="and much more"):
        with multihost.translate_lost_process():
            raise ValueError(f"{message}\nand much more")


MEETING = """
import json, sys
import numpy as np
from mnist_jax.parallel import devices, multihost

devices.start(1, sys.argv[1], 2, int(sys.argv[2]))
number = int(sys.argv[2])
tree = {"a": np.array([-0.0, 0.1, np.nan])[number:], "b": np.arange(3) * (1 - number)}
tree["a"] = np.resize(tree["a"], 3) if number else tree["a"]
shared = multihost.broadcast(tree)
told = []
try:
    with multihost.propagate_errors((ValueError,)):
        if number == 1:
            raise ValueError("r\\u00e9sum\\u00e9 \\udcff lost")
except (ValueError, multihost.ProcessError) as error:
    told.append(str(error))
try:
    multihost.check_same("abc"[: 2 + number])
except multihost.ProcessError as error:
    told.append(str(error))
print(json.dumps({
    "agreed": multihost.all_max(number, 7 - number, -5),
    "shared": [shared["a"].tobytes().hex(), shared["b"].tolist()],
    "told": told,
}))
"""


def start_scripts(script, numbers):
    """Processes of a Python script, which is given the address and its number."""
    address = free_address()
    return [
        start_python("-c", script, address, str(i), XLA_FLAGS=f"{DEVICES}1")
        for i in numbers
    ]


def test_what_processes_say_to_each_other_arrives():
    ended = finish(start_scripts(MEETING, [0, 1]))
    assert [status for status, _, _ in ended] == [0, 0], ended
    said = [json.loads(output.splitlines()[-1]) for _, output, _ in ended]
    first = np.array([-0.0, 0.1, np.nan]).tobytes().hex()
    for one in said:
        assert one["agreed"] == [1, 7, -5]
        assert one["shared"] == [first, [0, 1, 2]]
    assert said[0]["told"][0] == "process 1: r\u00e9sum\u00e9 \\udcff lost"
    assert said[1]["told"][0] == "r\u00e9sum\u00e9 \udcff lost"
    for one in said:
        assert "other settings, data or versions" in one["told"][1]


ALONE = """
import sys
from absl import app
import launch
from mnist_jax.parallel import multihost

multihost._JOIN_SECONDS = 3
app.run(launch.main, ["launch.py", "--dataset=digits", "--num_processes=2",
    f"--coordinator_address={sys.argv[1]}", f"--process_id={sys.argv[2]}"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_one_that_is_left_alone_ends_with_a_line(number):
    [(status, errors)] = ends(start_scripts(ALONE, [number]))
    assert status == 1
    line = error_line(errors)
    assert "did not find each other (not all were there within 3 s" in line
