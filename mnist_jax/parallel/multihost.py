"""Several processes, on one host or on many, that train one run together.

All hold the data and run the same programs; the first, number 0, alone writes. They
meet through `jax.distributed`, whose collectives carry signals and errors as well.
"""

import contextlib
import queue
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from mnist_jax import exits
from mnist_jax.errors import UserError, first_line
from mnist_jax.settings import ConfigError

AUTO = "auto"
_JOIN_SECONDS = 300  # for all processes to be there
_SILENT_SECONDS = 30  # until a process that says nothing is taken for lost
_MESSAGE_BYTES = 2048
# XLA's errors about a connection. Other codes, INTERNAL among them, can come of this
# process alone: there the message has to speak of one.
_LOST = re.compile(
    "^(ABORTED|CANCELLED|DEADLINE_EXCEEDED|UNAVAILABLE)|gloo|nccl|connection|socket"
    "|peer|heartbeat|barrier|coordinat|rendezvous",
    re.IGNORECASE,
)

_is_initialized = False


class ProcessError(UserError):
    """What another process did or did not do."""


def initialize(
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
            if value is None:
                continue
            if coordinator_address == AUTO:
                raise ConfigError(
                    f"--{name}={value}: expected none with --coordinator_address=auto, "
                    "where the cluster says it: leave it out, or give host:port"
                )
            raise ConfigError(
                f"--{name}={value} needs --coordinator_address: expected host:port of "
                "process 0, as in --coordinator_address=10.0.0.1:1234"
            )
        if coordinator_address is None:
            return
    else:
        _check(coordinator_address, num_processes, process_id)
    global _is_initialized
    exits.join_group(is_main_process)
    # JAX's own answer to SIGTERM would take it from the training loop.
    jax.config.update("jax_enable_preemption_service", False)
    where = {} if coordinator_address == AUTO else {
        "coordinator_address": coordinator_address, **numbers
    }  # fmt: skip
    problem = _connect(where)
    if problem is not None:
        raise ProcessError(
            f"--coordinator_address={coordinator_address}: the processes did not find "
            f"each other ({problem}): start as many as --num_processes says, each with "
            "its own --process_id, and let all reach that address"
        )
    _is_initialized = True


def _connect(where: dict[str, Any]) -> str | None:
    """What went wrong, or None; in a thread, as JAX waits deaf to signals."""
    ended: queue.Queue[str | None] = queue.Queue()

    def connect() -> None:
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

    threading.Thread(target=connect, daemon=True).start()
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


def is_multiprocess() -> bool:
    """Whether there are other processes; False before `initialize`."""
    return _is_initialized and jax.process_count() > 1


def is_main_process() -> bool:
    """Whether this process is the one that writes."""
    return not is_multiprocess() or jax.process_index() == 0


def all_max(*numbers: int) -> list[int]:
    """The maximum over all processes of each of some int32 numbers."""
    if not is_multiprocess():
        return list(numbers)
    gathered = multihost_utils.process_allgather(np.array(numbers, np.int32))
    return gathered.max(axis=0).tolist()


def broadcast(tree: Any) -> Any:
    """The main process's arrays, bit for bit, as NumPy arrays in every process."""
    if not is_multiprocess():
        return tree
    leaves, treedef = jax.tree.flatten(jax.tree.map(np.asarray, tree))
    # As bytes: they are handed on as a sum, which makes 0.0 of -0.0.
    content = np.frombuffer(b"".join(leaf.tobytes() for leaf in leaves), np.uint8)
    content = np.asarray(multihost_utils.broadcast_one_to_all(content)).tobytes()
    leaves_here, start = [], 0
    for leaf in leaves:
        values = np.frombuffer(content, leaf.dtype, leaf.size, start)
        leaves_here.append(values.reshape(leaf.shape))
        start += leaf.nbytes
    return jax.tree.unflatten(treedef, leaves_here)


def check_same(digest: str) -> None:
    """Raises ProcessError where this is not the same ASCII text in every process."""
    for number, other in enumerate(_all_gather_text(digest)):
        if other != digest:
            raise ProcessError(
                f"process {number} has other settings, data or versions than process "
                f"{jax.process_index()}: give all the same flags, data and packages"
            )


@contextlib.contextmanager
def propagate_errors(errors: tuple[type[Exception], ...]) -> Iterator[None]:
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
    own = "" if failure is None else str(failure) or type(failure).__name__
    for number, message in enumerate(_all_gather_text(own)):
        if message and not failure:
            raise ProcessError(f"process {number}: {message}")
    if failure:
        raise failure


@contextlib.contextmanager
def translate_lost_process() -> Iterator[None]:
    """Makes of XLA's error about a lost process one that a person understands.

    Raises:
      ProcessError: another process ended or cannot be reached any more.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:  # JAX raises the one or the other
        reason = first_line(error)
        if not is_multiprocess() or not _LOST.search(reason):
            raise
        raise ProcessError(
            f"another of the {jax.process_count()} processes ended or cannot be "
            f"reached any more ({reason}): see what it said; the same commands, "
            "without --overwrite, go on from the last checkpoint"
        ) from error


def _all_gather_text(text: str) -> list[str]:
    """The text of each process, by process."""
    if not is_multiprocess():
        return [text]
    content = np.zeros(_MESSAGE_BYTES, np.uint8)
    encoded = text.encode(errors="backslashreplace")[:_MESSAGE_BYTES]
    encoded = np.frombuffer(encoded, np.uint8)
    content[: len(encoded)] = encoded
    rows = multihost_utils.process_allgather(content)
    return [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in rows]
