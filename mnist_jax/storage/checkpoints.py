"""State on disk: of one run, or of vectorized runs.

Orbax writes each checkpoint beside its final name and renames it, and keeps the last
two. Arrays are saved as they are on the host, so that a run can go on with another
number of devices. A checkpoint has three items: `params`, which is all that evaluation
needs; `training`, the rest of what decides the future, with the history of the epoch in
progress; and `record`, JSON with the schema's number, what it is a checkpoint of, the
epochs so far and SHA-256 sums, by which damage is known. A checkpoint that is of
something else, or does not read back as it was written, gives way to the one before.

Schema 1, whose number was 'layout' 2, had all settings of the run in place of its
identity, and no names of the history, which were loss and accuracy.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from mnist_jax import digests
from mnist_jax.config import Config, decisive
from mnist_jax.errors import UserError
from mnist_jax.storage import checkpoint_io, records
from mnist_jax.storage.checkpoint_io import Unusable


class CheckpointError(UserError):
    """A checkpoint that is missing, unreadable or cannot be written."""


class Checkpoints:
    """The checkpoints in the folder `workdir`/checkpoints.

    Args:
      workdir: of a run.
      identity: JSON; of what the checkpoints are, as `Config.identity` says it of a
        run. Checkpoints of something else are not restored.
      read_only: for a reader beside the process that trains: nothing is changed.
    """

    def __init__(self, workdir: Path, identity: Any, read_only: bool = False):
        self._workdir = Path(workdir).absolute()
        self._folder = self._workdir / records.CHECKPOINTS
        self._identity, self._read_only = identity, read_only
        self._manager = None
        if read_only and not self._folder.is_dir():
            return
        if not read_only:
            self._folder.mkdir(parents=True, exist_ok=True)
            checkpoint_io.remove_unfinished(self._folder)
        self._manager = checkpoint_io.open_manager(self._folder)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception):
        if self._manager is not None:
            self._manager.close()
        if not self._read_only:
            checkpoint_io.remove_unfinished(self._folder)

    def latest_step(self) -> int | None:
        """Steps done at the last checkpoint; None where there is none."""
        return self._manager.latest_step() if self._manager else None

    def save(
        self, step: int, params: Any, training: Any, epochs: Sequence = ()
    ) -> None:
        """Saves two trees of arrays and some JSON as the checkpoint of `step`.

        Args:
          step: higher than that of the last checkpoint.
          params: tree of arrays.
          training: dict of trees; 'history' holds arrays by the names of metrics.
          epochs: JSON; what is known of the finished epochs.

        Raises:
          CheckpointError: it cannot be written.
        """
        if self.latest_step() == step:
            return
        params, training = jax.tree.map(np.asarray, (params, training))
        record = {
            "schema": records.SCHEMA,
            "identity": self._identity,
            "history": list(training["history"]),
            "epochs": list(epochs),
            "sha256": {
                "params": digests.of_arrays(params),
                "training": digests.of_arrays(training),
                "epochs": digests.of_json(epochs),
            },
        }
        try:
            checkpoint_io.write(self._manager, step, params, training, record)
        except checkpoint_io.WriteError as error:
            checkpoint_io.remove_unfinished(self._folder)
            raise CheckpointError(
                f"{self._folder / str(step)} cannot be written ({error}): make room or "
                "give another --workdir; the last checkpoint is kept"
            ) from error

    def restore_params(self, params: Any) -> tuple[int, Any]:
        """Step and params of the last sound checkpoint.

        Args:
          params: a tree of such shapes and dtypes.

        Raises:
          CheckpointError: there is none.
        """
        step, items, _ = self._restore(params=params)
        return step, items["params"]

    def restore(
        self, params: Any, training: Any, step: int | None = None
    ) -> tuple[Any, Any, list[Any]]:
        """All of the last sound checkpoint: two trees of NumPy arrays, and the epochs.

        Later ones, which are damaged, are set aside unless this is `read_only`. The
        history has the metrics that it was saved with.

        Args:
          params, training: trees of such shapes and dtypes.
          step: that of the one to restore, and no other; None for the last sound one.

        Raises:
          CheckpointError: there is none.
        """
        _, items, epochs = self._restore(step, params=params, training=training)
        return items["params"], items["training"], epochs

    def _restore(
        self, wanted: int | None = None, **templates: Any
    ) -> tuple[int, dict[str, Any], list[Any]]:
        damaged: dict[int, str] = {}
        for step in self._steps(wanted):
            try:
                found = self._read(step, templates)
            except Unusable as error:
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
            return step, *found
        if self._read_only and damaged and self._steps(wanted) != list(damaged):
            # The process that trains has replaced them in the meantime.
            return self._restore(wanted, **templates)
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

    def _steps(self, wanted: int | None = None) -> list[int]:
        """Of the checkpoints there are now, the last first; or of `wanted` alone."""
        if self._manager is None:
            return []
        self._manager.reload()
        steps = sorted(self._manager.all_steps(), reverse=True)
        return [step for step in steps if wanted in (None, step)]

    def _read(self, step: int, templates: dict[str, Any]) -> tuple[dict, list[Any]]:
        """One checkpoint, or Unusable."""
        record = self._read_record(step)
        with checkpoint_io.unusable():
            if "training" in templates:
                history = templates["training"]["history"]
                like = next(iter(history.values()))
                history = {name: history.get(name, like) for name in record["history"]}
                training = templates["training"] | {"history": history}
                templates = templates | {"training": training}
            items = checkpoint_io.read(self._manager, step, templates)
            sums = {name: digests.of_arrays(tree) for name, tree in items.items()}
            sums["epochs"] = digests.of_json(record["epochs"])
            for name, digest in sums.items():
                if record["sha256"][name] != digest:
                    raise Unusable(f"the SHA-256 sum of its {name} differs")
            for name, template in templates.items():
                if _kinds(items[name]) != _kinds(template):
                    raise Unusable("it is of another model")
        return items, record["epochs"]

    def _read_record(self, step: int) -> dict[str, Any]:
        """A checkpoint's record, as schema 2 has it, or Unusable."""
        if not (self._folder / str(step) / "record").is_dir():
            raise Unusable("it has no record: of another version, or no checkpoint")
        with checkpoint_io.unusable():
            record = checkpoint_io.read_record(self._manager, step)
            if record.get("layout") == 2:
                record |= {
                    "schema": 1,
                    "identity": Config.from_dict(record["run"]).identity(),
                    "history": ["loss", "accuracy"],
                }
            if record.get("schema") not in range(1, records.SCHEMA + 1):
                raise Unusable("it is written by another version of mnist_jax")
            if _decisive(record["identity"]) != self._identity:
                raise Unusable("it is of another run")
            return record

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


def _decisive(identity: Any) -> Any:
    """That of a run or of several, without settings that decided when it was saved."""
    if isinstance(identity, list):
        return [_decisive(one) for one in identity]
    return decisive(identity) if isinstance(identity, dict) else identity


def _kinds(tree: Any) -> list[tuple]:
    leaves = map(np.asarray, jax.tree.leaves(tree))
    return [(leaf.shape, leaf.dtype) for leaf in leaves]
