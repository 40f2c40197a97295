"""A run's state on disk, by orbax.

Orbax writes each checkpoint beside its final name and renames it, and keeps the last
two. Arrays are saved as they are on the host, so that a run can go on with another
number of devices. A checkpoint has three items: `params`, which is all that evaluation
needs; `training`, the rest of what decides the run's future; and `record`, JSON with
the run's settings, the epochs so far and SHA-256 sums, by which damage is known. A
checkpoint that is not this run's, or does not read back as it was written, gives way to
the one before.
"""

import asyncio.log
import contextlib
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from mnist_jax import digests, records
from mnist_jax.config import NOT_IDENTITY

_KEEP = 2
_LAYOUT = 2  # of what is described above
_JOIN_SECONDS = 10
_UNFINISHED = "*.orbax-checkpoint-tmp*"


class CheckpointError(Exception):
    """A checkpoint that is missing, unreadable or cannot be written; one line."""


class _Unusable(Exception):
    """Why one checkpoint is of no use."""


class Checkpoints:
    """The checkpoints of the run in `workdir`.

    Args:
      workdir: the run's folder.
      read_only: for a reader beside the process that trains: nothing is changed.
    """

    def __init__(self, workdir: Path, read_only: bool = False):
        self._workdir = Path(workdir).absolute()
        self._folder = self._workdir / records.CHECKPOINTS
        self._read_only = read_only
        self._run = records.read_config(self._workdir, _identity)
        self._manager = None
        if read_only and not self._folder.is_dir():
            return
        if not read_only:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._remove_unfinished()
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=_KEEP,
                enable_async_checkpointing=False,
                create=False,
                # Of several processes only the first comes here: it waits for none.
                multiprocessing_options=ocp.options.MultiprocessingOptions(
                    primary_host=0, active_processes={0}
                ),
            ),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception):
        if self._manager is not None:
            self._manager.close()
        if not self._read_only:
            self._remove_unfinished()

    def latest_step(self) -> int | None:
        """Steps done at the last checkpoint; None where there is none."""
        return self._manager.latest_step() if self._manager else None

    def save(
        self,
        step: int,
        params: Any,
        training: Any,
        epochs: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Saves two trees of arrays and some JSON as the checkpoint of `step`.

        Raises:
          CheckpointError: it cannot be written.
        """
        if self.latest_step() == step:
            return
        params, training = jax.tree.map(np.asarray, (params, training))
        record = {
            "layout": _LAYOUT,
            "run": self._run,
            "epochs": list(epochs),
            "sha256": {
                "params": digests.of_arrays(params),
                "training": digests.of_arrays(training),
                "epochs": digests.of_json(epochs),
            },
        }
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(params),
            training=ocp.args.StandardSave(training),
            record=ocp.args.JsonSave(record),
        )
        with _quiet():
            try:
                if not self._manager.save(step, args=items):
                    raise ValueError(f"after step {self.latest_step()}")
            except Exception as error:  # orbax and tensorstore have many
                _join_writers()
                self._remove_unfinished()
                # It tells of the tasks that orbax dropped whenever they are collected.
                asyncio.log.logger.disabled = True
                raise CheckpointError(
                    f"{self._folder / str(step)} cannot be written "
                    f"({records.first_line(error)}): make room or give another "
                    "--workdir; the last checkpoint is kept"
                ) from error

    def restore_params(self, params: Any) -> Any:
        """The last sound checkpoint's params; `params` gives tree, shapes and dtypes.

        Raises:
          CheckpointError: there is none.
        """
        items, _ = self._restore(params=params)
        return items["params"]

    def restore(self, params: Any, training: Any) -> tuple[Any, Any, list[dict]]:
        """All of the last sound checkpoint: two trees of NumPy arrays, and the epochs.

        Later ones, which are damaged, are set aside unless this is `read_only`.

        Raises:
          CheckpointError: there is none.
        """
        items, epochs = self._restore(params=params, training=training)
        return items["params"], items["training"], epochs

    def _restore(self, **templates: Any) -> tuple[dict[str, Any], list[dict]]:
        damaged: dict[int, str] = {}
        for step in self._steps():
            try:
                found = self._read(step, templates)
            except _Unusable as error:
                damaged[step] = str(error)
                continue
            for bad, reason in damaged.items():
                kept = "" if self._read_only else f"; now in {self._set_aside(bad)}"
                logging.warning(
                    "%s is damaged (%s)%s; going on from step %d",
                    self._folder / str(bad),
                    reason,
                    kept,
                    step,
                )
            return found
        if self._read_only and damaged and self._steps() != list(damaged):
            # The process that trains has replaced them in the meantime.
            return self._restore(**templates)
        if not damaged:
            raise CheckpointError(
                f"{self._folder} holds no checkpoint: train first, or wait for the "
                "run's first checkpoint"
            )
        step, reason = next(iter(damaged.items()))
        raise CheckpointError(
            f"{self._folder / str(step)} cannot be read ({reason}), nor any other "
            "checkpoint there: restore the folder from a copy, or train again with "
            "--overwrite"
        )

    def _steps(self) -> list[int]:
        """Of the checkpoints there are now, the last one first."""
        if self._manager is None:
            return []
        self._manager.reload()
        return sorted(self._manager.all_steps(), reverse=True)

    def _read(
        self, step: int, templates: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[dict]]:
        """One checkpoint, or _Unusable."""
        if not (self._folder / str(step) / "record").is_dir():
            raise _Unusable("it has no record: of another version, or no checkpoint")
        with _unusable():
            args = ocp.args.Composite(record=ocp.args.JsonRestore())
            record = self._manager.restore(step, args=args)["record"]
        if not isinstance(record, dict) or record.get("layout") != _LAYOUT:
            raise _Unusable("it is laid out by another version of mnist_jax")
        if record.get("run") != self._run:
            raise _Unusable("it is of another run")
        with _unusable():
            saved, epochs = record["sha256"], record["epochs"]
            args = {
                name: ocp.args.StandardRestore(jax.tree.map(np.asarray, template))
                for name, template in templates.items()
            }
            found = self._manager.restore(step, args=ocp.args.Composite(**args))
            items = {name: found[name] for name in templates}
            sums = {name: digests.of_arrays(tree) for name, tree in items.items()}
            sums["epochs"] = digests.of_json(epochs)
            for name, digest in sums.items():
                if saved[name] != digest:
                    raise _Unusable(f"the SHA-256 sum of its {name} differs")
            for name, template in templates.items():
                if _kinds(items[name]) != _kinds(template):
                    raise _Unusable("it is of another model")
        return items, epochs

    def _set_aside(self, step: int) -> Path:
        """Moves a checkpoint out of the way; returns where it is now."""
        folder = self._workdir / records.DAMAGED
        folder.mkdir(exist_ok=True)
        target, number = folder / str(step), 1
        while target.exists():
            number += 1
            target = folder / f"{step}-{number}"
        (self._folder / str(step)).rename(target)
        self._manager.reload()
        return target

    def _remove_unfinished(self) -> None:
        """What a process that was killed, or a full disk, left half written."""
        for _ in range(100):
            paths = list(self._folder.glob(_UNFINISHED))
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


def _join_writers() -> None:
    """Waits for what orbax's threads still write after one of them failed."""
    for thread in threading.enumerate():
        if type(thread).__module__.startswith("orbax."):
            threading.Thread.join(thread, _JOIN_SECONDS)  # its own raises


@contextlib.contextmanager
def _unusable() -> Iterator[None]:
    try:
        with _quiet():
            yield
    except Exception as error:  # orbax and tensorstore have many
        raise _Unusable(records.first_line(error)) from error


def _identity(settings: dict[str, Any]) -> dict[str, Any]:
    """Those settings that decide which run it is."""
    return {name: x for name, x in settings.items() if name not in NOT_IDENTITY}


def _kinds(tree: Any) -> list[tuple]:
    leaves = map(np.asarray, jax.tree.leaves(tree))
    return [(leaf.shape, leaf.dtype) for leaf in leaves]
