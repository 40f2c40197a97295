"""One checkpoint by orbax, whose only user this is: written, read, cleaned up after."""

import asyncio.log
import contextlib
import functools
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from mnist_jax.errors import first_line

_KEEP = 2  # checkpoints
_JOIN_SECONDS = 10
_UNFINISHED = "*.orbax-checkpoint-tmp*"


class WriteError(Exception):
    """Why a checkpoint cannot be written, in a few words."""


class Unusable(Exception):
    """Why a checkpoint is of no use, in a few words."""


def open_manager(folder: Path) -> ocp.CheckpointManager:
    """Of the checkpoints in a folder that exists."""
    # Of several processes the first alone writes, and each may read: none waits for
    # another.
    process = jax.process_index()
    return ocp.CheckpointManager(
        folder,
        options=ocp.CheckpointManagerOptions(
            max_to_keep=_KEEP,
            enable_async_checkpointing=False,
            create=False,
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=process, active_processes={process}
            ),
        ),
    )


def write(
    manager: ocp.CheckpointManager, step: int, params: Any, training: Any, record: Any
) -> None:
    """Writes two trees of NumPy arrays and some JSON.

    Raises:
      WriteError: it cannot be written; what is half written may be left.
    """
    items = ocp.args.Composite(
        params=ocp.args.StandardSave(params),
        training=ocp.args.StandardSave(training),
        record=ocp.args.JsonSave(record),
    )
    _ignore_closed_loops()
    with _quiet():
        try:
            if not manager.save(step, args=items):
                raise ValueError(f"after step {manager.latest_step()}")
        except Exception as error:  # orbax and tensorstore have many
            _join_writers()
            # It tells of the tasks that orbax dropped whenever they are collected.
            asyncio.log.logger.disabled = True
            raise WriteError(first_line(error)) from error


def read(
    manager: ocp.CheckpointManager, step: int, templates: Mapping[str, Any]
) -> dict[str, Any]:
    """Items of a checkpoint: for each template a tree of NumPy arrays like it."""
    args = {
        name: ocp.args.StandardRestore(jax.tree.map(np.asarray, template))
        for name, template in templates.items()
    }
    found = manager.restore(step, args=ocp.args.Composite(**args))
    return {name: found[name] for name in templates}


def read_record(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    """The JSON of a checkpoint."""
    args = ocp.args.Composite(record=ocp.args.JsonRestore())
    record = manager.restore(step, args=args)["record"]
    if not isinstance(record, dict):
        raise Unusable("its record is no JSON object")
    return record


@contextlib.contextmanager
def unusable() -> Iterator[None]:
    """Takes whatever goes wrong for an unusable checkpoint."""
    try:
        with _quiet():
            yield
    except Unusable:
        raise
    except Exception as error:  # orbax and tensorstore have many
        raise Unusable(first_line(error)) from error


def remove_unfinished(folder: Path) -> None:
    """What a process that was killed, or a full disk, left half written."""
    for _ in range(100):
        paths = list(folder.glob(_UNFINISHED))
        for path in paths:
            shutil.rmtree(path, ignore_errors=True)
        if not paths:
            break
        time.sleep(0.02)  # threads of tensorstore's may still write there


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps orbax from logging, with a traceback, the errors that it raises too."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.FATAL)
    try:
        yield
    finally:
        logging.set_verbosity(before)


@functools.cache
def _ignore_closed_loops() -> None:
    """Keeps tensorstore from printing that it cannot report to orbax any more.

    When a write fails, orbax closes its event loop before all writes have ended. What
    they then report, some of it later, is no news, and belongs to no object.
    """
    report = sys.unraisablehook

    def hook(unraisable):
        is_closed = "Event loop is closed" in str(unraisable.exc_value)
        if unraisable.object is not None or not is_closed:
            report(unraisable)

    sys.unraisablehook = hook


def _join_writers() -> None:
    """Waits for what orbax's threads still write after one of them failed."""
    for thread in threading.enumerate():
        if type(thread).__module__.startswith("orbax."):
            threading.Thread.join(thread, _JOIN_SECONDS)  # its own raises
