"""Several processes, on one host or on many, that train one run together.

All hold the data and run the same programs; the first, number 0, alone writes. They
meet through `jax.distributed`, whose collectives carry what is said here as well.
"""

import contextlib
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from mnist_jax.config import ConfigError
from mnist_jax.records import first_line

AUTO = "auto"
_JOIN_SECONDS = 300  # for all processes to be there
_SILENT_SECONDS = 30  # until a process that says nothing is taken for lost
_MESSAGE_BYTES = 2048
# What XLA's errors about a connection begin with.
_LOST = (
    "ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "FAILED_PRECONDITION", "INTERNAL",
    "UNAVAILABLE", "UNKNOWN",
)  # fmt: skip

_is_asked = False  # to be one of several
_is_joined = False


class ProcessError(Exception):
    """What another process did or did not do; one line with the remedy."""


def join(
    coordinator_address: str | None,
    num_processes: int | None,
    process_id: int | None,
) -> None:
    """Makes this process one of several; call it before JAX's first use.

    Args:
      coordinator_address: host:port of process 0, 'auto' where the cluster's own
        variables say all three (SLURM, Open MPI, Kubernetes, TPU pods), None for a
        process by itself.
      num_processes: how many there are.
      process_id: which one this is, from 0.

    Raises:
      ConfigError: the three do not fit together.
      ProcessError: the others are not there in time.
    """
    numbers = {"num_processes": num_processes, "process_id": process_id}
    if coordinator_address in (None, AUTO):
        for name, value in numbers.items():
            if value is not None:
                raise ConfigError(
                    f"--{name}={value} needs --coordinator_address: expected host:port "
                    "of process 0, as in --coordinator_address=10.0.0.1:1234"
                )
        if coordinator_address is None:
            return
    else:
        _check(coordinator_address, num_processes, process_id)
    global _is_asked, _is_joined
    _is_asked = True
    # JAX's own answer to SIGTERM would take it from the training loop.
    jax.config.update("jax_enable_preemption_service", False)
    where = {} if coordinator_address == AUTO else {
        "coordinator_address": coordinator_address, **numbers
    }  # fmt: skip
    problem = _initialize(where)
    if problem is not None:
        raise ProcessError(
            f"--coordinator_address={coordinator_address}: the processes did not find "
            f"each other ({problem}): start as many as --num_processes says, each with "
            "its own --process_id, and let all reach that address"
        )
    _is_joined = True


def _initialize(where: dict[str, Any]) -> str | None:
    """What went wrong, or None; in a thread, as JAX waits deaf to signals."""
    ended: queue.Queue[str | None] = queue.Queue()

    def initialize() -> None:
        try:
            jax.distributed.initialize(
                **where,
                # When this is over JAX aborts the process.
                initialization_timeout=_JOIN_SECONDS + 60,
                heartbeat_timeout_seconds=_SILENT_SECONDS,
            )
            ended.put(None)
        except Exception as error:
            ended.put(" ".join(str(error).split()) or type(error).__name__)

    threading.Thread(target=initialize, daemon=True).start()
    deadline = time.monotonic() + _JOIN_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(queue.Empty):
            return ended.get(timeout=1)  # signals are answered in between
    return f"not all were there within {_JOIN_SECONDS} seconds"


def _check(address: str, num_processes: int | None, process_id: int | None) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ConfigError(
            f"--coordinator_address={address}: expected host:port of process 0, as in "
            "10.0.0.1:1234, or auto"
        )
    if num_processes is None or num_processes < 1:
        raise ConfigError(
            f"--num_processes={num_processes}: expected with --coordinator_address a "
            "whole number of 1 or more"
        )
    if process_id is None or not 0 <= process_id < num_processes:
        raise ConfigError(
            f"--process_id={process_id}: expected with --num_processes={num_processes} "
            f"a whole number from 0 to {num_processes - 1}"
        )


def is_one_of_several() -> bool:
    """Whether there are other processes; False before `join`."""
    return _is_joined and jax.process_count() > 1


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return not is_one_of_several() or jax.process_index() == 0


def agree(*numbers: int) -> list[int]:
    """The largest that any process names, for each of some int32 numbers."""
    if not is_one_of_several():
        return list(numbers)
    named = multihost_utils.process_allgather(np.array(numbers, np.int32))
    return named.max(axis=0).tolist()


def share(tree: Any) -> Any:
    """The first process's arrays, bit for bit, as NumPy arrays in every process."""
    if not is_one_of_several():
        return tree
    leaves, treedef = jax.tree.flatten(jax.tree.map(np.asarray, tree))
    # As bytes: they are handed on as a sum, which makes 0.0 of -0.0.
    content = np.frombuffer(b"".join(leaf.tobytes() for leaf in leaves), np.uint8)
    content = np.asarray(multihost_utils.broadcast_one_to_all(content)).tobytes()
    shared, start = [], 0
    for leaf in leaves:
        values = np.frombuffer(content, leaf.dtype, leaf.size, start)
        shared.append(values.reshape(leaf.shape))
        start += leaf.nbytes
    return jax.tree.unflatten(treedef, shared)


def check_same(digest: str) -> None:
    """Raises ProcessError where this is not the same ASCII text in every process."""
    for number, other in enumerate(_tell_all(digest)):
        if other != digest:
            raise ProcessError(
                f"process {number} has other settings, data or versions than process "
                f"{jax.process_index()}: give all the same flags, data and packages"
            )


@contextlib.contextmanager
def together(errors: tuple[type[Exception], ...]) -> Iterator[None]:
    """Waits at its end for all processes, and fails in all if it failed in one.

    Args:
      errors: those that count; with another one this process is lost to the others.

    Raises:
      ProcessError: what went wrong in another process.
    """
    failure = None
    try:
        yield
    except errors as error:
        failure = error
    told = "" if failure is None else str(failure) or type(failure).__name__
    for number, message in enumerate(_tell_all(told)):
        if message and not failure:
            raise ProcessError(f"process {number}: {message}")
    if failure:
        raise failure


@contextlib.contextmanager
def lost_is_told() -> Iterator[None]:
    """Takes JAX's error about a lost process for what it is.

    Raises:
      ProcessError: another process ended or cannot be reached any more.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:  # JAX raises the one or the other
        reason = first_line(error)
        if not is_one_of_several() or not reason.startswith(_LOST):
            raise
        raise ProcessError(
            f"another of the {jax.process_count()} processes ended or cannot be "
            f"reached any more ({reason}): see what it said; the same commands, "
            "without --overwrite, go on from the last checkpoint"
        ) from error


def leave(status: int) -> NoReturn:
    """Ends this process; in order JAX would wait for others that may wait for it."""
    if not _is_asked:
        sys.exit(status)
    sys.stdout.flush()
    sys.stderr.flush()
    if is_first():
        # The others are ended without a word when this process is gone: they have the
        # time to say why themselves.
        time.sleep(2)
    os._exit(status)


def _tell_all(text: str) -> list[str]:
    """What each process says, by process."""
    if not is_one_of_several():
        return [text]
    content = np.zeros(_MESSAGE_BYTES, np.uint8)
    spoken = np.frombuffer(text.encode()[:_MESSAGE_BYTES], np.uint8)
    content[: len(spoken)] = spoken
    said = multihost_utils.process_allgather(content)
    return [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in said]
