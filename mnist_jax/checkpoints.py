"""A run's state on disk, by orbax.

Orbax writes each checkpoint beside its final name and renames it, and keeps the last
two. Arrays are saved as they are on the host, so that a run can go on with another
number of devices. A checkpoint has two items: `params`, which is all that evaluation
needs, and `training`, the rest of what decides the run's future.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from mnist_jax import records

_KEEP = 2


class CheckpointError(Exception):
    """A checkpoint that is missing, unreadable or cannot be written; one line."""


class Checkpoints:
    """The checkpoints of the run in `workdir`."""

    def __init__(self, workdir: Path):
        self._folder = Path(workdir).absolute() / records.CHECKPOINTS
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=_KEEP, enable_async_checkpointing=False
            ),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception):
        self._manager.close()

    def latest_step(self) -> int | None:
        """Steps done at the last checkpoint; None where there is none."""
        return self._manager.latest_step()

    def save(self, step: int, params: Any, training: Any) -> None:
        """Saves two trees of arrays as the checkpoint of `step`.

        Raises:
          CheckpointError: it cannot be written.
        """
        if self.latest_step() == step:
            return
        to_host = ocp.args.StandardSave
        params, training = jax.tree.map(np.asarray, (params, training))
        items = ocp.args.Composite(params=to_host(params), training=to_host(training))
        try:
            self._manager.save(step, args=items)
        except Exception as error:  # orbax and tensorstore have many
            reason = records.first_line(error)
            raise CheckpointError(
                f"{self._folder / str(step)} cannot be written ({reason}): "
                "make room or give another --workdir; the last checkpoint is kept"
            ) from error

    def restore_params(self, params: Any) -> Any:
        """The last checkpoint's params; `params` gives the tree, shapes and dtypes.

        Raises:
          CheckpointError: there is none, or it cannot be read.
        """
        return self._restore(params=params)["params"]

    def restore(self, params: Any, training: Any) -> tuple[Any, Any]:
        """Both items of the last checkpoint, as NumPy arrays.

        Raises:
          CheckpointError: there is none, or it cannot be read.
        """
        items = self._restore(params=params, training=training)
        return items["params"], items["training"]

    def _restore(self, **templates: Any) -> Any:
        step = self.latest_step()
        if step is None:
            raise CheckpointError(
                f"{self._folder} holds no checkpoint: train first, or wait for the "
                "run's first checkpoint"
            )
        items = {
            name: ocp.args.StandardRestore(jax.tree.map(np.asarray, template))
            for name, template in templates.items()
        }
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except Exception as error:  # orbax and tensorstore have many
            reason = records.first_line(error)
            raise CheckpointError(
                f"{self._folder / str(step)} cannot be read ({reason}): remove that "
                "folder to go on from the checkpoint before it, or train again with "
                "--overwrite"
            ) from error
