"""Successive halving over vectorized runs (Jamieson and Talwalkar, 2016).

All trials train for some epochs, the best part of them goes on, and so on to the end.
Trials that differ in `member_step.MEMBER_SETTINGS` alone are a group, whose members
train together.
"""

import json
import math
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tqdm

from mnist_jax import data
from mnist_jax.config import Config, ConfigError
from mnist_jax.member_step import MEMBER_SETTINGS
from mnist_jax.storage import records
from mnist_jax.storage.checkpoints import CheckpointError
from mnist_jax.vectorized import VectorizedRuns

_STATES = "states"
_REMEDY = "delete its folder, or give another --workdir"


def rungs(epochs: int, factor: int) -> list[int]:
    """Epochs after which trials are dropped, and the last: 9 by thirds is 1, 3, 9."""
    ends = [epochs]
    while factor > 1 and ends[0] // factor >= 1:
        ends.insert(0, ends[0] // factor)
    return ends


def group(configs: Sequence[Config]) -> list[list[int]]:
    """Indices of configs that can be members of one program, the largest first."""
    groups: dict[str, list[int]] = {}
    for i, config in enumerate(configs):
        identity = config.identity().items()
        shared = {k: v for k, v in identity if k not in MEMBER_SETTINGS}
        groups.setdefault(json.dumps(shared), []).append(i)
    return sorted(groups.values(), key=len, reverse=True)


class Search:
    """The trials of a search and how far they are.

    A JSON file holds the scores; beside it, states/<group>/ holds the checkpoints of
    each group, whose step is the epoch.

    Attributes:
      path: of the JSON file.
      configs: of the trials.
      trials: for each its 'settings', the 'epochs' it is to train for, and in 'scores'
        for each epoch what `VectorizedRuns.train_epoch` gives, and 'group_seconds'
        of the epoch of all members of its group that were trained.
    """

    def __init__(
        self,
        path: Path,
        configs: Sequence[Config],
        settings: Sequence[Mapping[str, Any]],
        factor: int = 1,
    ):
        """Starts or goes on.

        Args:
          path: of the JSON file.
          configs: of the trials; their `epochs` are those of a trial that is never
            dropped.
          settings: in what each of them differs from the others.
          factor: at each rung one trial in so many is kept; 1 to drop none.

        Raises:
          RecordsError: the file is damaged, or of another search.
        """
        self.path, self.configs, self._factor = path, list(configs), factor
        self._groups = group(configs)
        first = configs[0]
        self._data_sha256 = data.prepared_sha256(
            first.dataset, first.data_dir, first.raw_dir, first.preprocess
        )
        self.trials = [{"settings": own, "epochs": 0, "scores": []} for own in settings]
        self._read()

    def run(self) -> None:
        """Trains all trials as far as successive halving takes them.

        Raises:
          RecordsError: the checkpoints of a search that was stopped are damaged.
        """
        with self._bar() as bar:
            alive = list(range(len(self.configs)))
            for end in rungs(self.configs[0].epochs, self._factor):
                for i in alive:
                    self.trials[i]["epochs"] = end
                for number, indices in enumerate(self._groups):
                    members = [i for i in indices if i in alive]
                    if any(self._epochs_done(i) < end for i in members):
                        self._train(number, members, end, bar)
                if self._factor > 1:
                    alive = self.best(alive, end)[: -(-len(alive) // self._factor)]

    def best(self, trials: Sequence[int], epoch: int = 0) -> list[int]:
        """Trials by validation accuracy, the best first; ties by validation loss.

        Args:
          trials: their indices.
          epoch: after which; 0 for the last that each was trained for. A rung is
            decided by its own epoch, also when the search goes on later.
        """

        def badness(i):
            scores = self.trials[i]["scores"][epoch - 1]
            loss = scores["validation_loss"]
            loss = loss if math.isfinite(loss) else math.inf
            return -scores["validation_accuracy"], loss

        return sorted(trials, key=badness)

    def ranking(self) -> list[int]:
        """Indices of all trials, the best first: who was kept longer is better."""
        best = self.best(range(len(self.trials)))
        return sorted(best, key=lambda i: -self._epochs_done(i))

    def trained(self) -> VectorizedRuns:
        """All trials at their end, where none is dropped and all are one group.

        Raises:
          RecordsError: their checkpoint is missing or damaged.
        """
        runs = VectorizedRuns(self.configs)
        self._restore(runs, 0, range(len(self.configs)), self.configs[0].epochs)
        return runs

    def forget_states(self) -> None:
        """Removes what only `trained`, or a search that is not at its end, needs."""
        shutil.rmtree(self.path.parent / _STATES, ignore_errors=True)

    def _train(self, number: int, members: Sequence[int], end: int, bar) -> None:
        """Trains members of a group to the epoch `end`."""
        folder = self._folder(number)
        runs = VectorizedRuns([self.configs[i] for i in members])
        done = self._epochs_done(members[0])
        if done:
            self._restore(runs, number, members, done)
        else:
            # What is left of a search whose JSON file was deleted.
            shutil.rmtree(folder, ignore_errors=True)
        while runs.epoch < end:
            began = time.perf_counter()
            scores = runs.train_epoch()
            seconds = time.perf_counter() - began
            runs.save(folder, self._identity(members))
            for i, score in zip(members, scores, strict=True):
                self.trials[i]["scores"].append(score | {"group_seconds": seconds})
            self._write()  # from here on the new checkpoint counts
            bar.update(len(members))

    def _restore(
        self, runs: VectorizedRuns, number: int, members: Sequence[int], epoch: int
    ) -> None:
        saved = [i for i in self._groups[number] if self._epochs_done(i) >= epoch]
        places = [saved.index(i) for i in members]
        try:
            runs.restore(
                self._folder(number), self._identity(saved), epoch, places, len(saved)
            )
        except CheckpointError as error:
            raise records.RecordsError(
                f"{self.path}: the checkpoints of epoch {epoch} are missing or "
                f"damaged: {_REMEDY}"
            ) from error

    def _folder(self, number: int) -> Path:
        return self.path.parent / _STATES / str(number)

    def _identity(self, members: Sequence[int]) -> list[dict[str, Any]]:
        return [self.configs[i].identity() for i in members]

    def _epochs_done(self, trial: int) -> int:
        return len(self.trials[trial]["scores"])

    def _bar(self) -> tqdm.tqdm:
        """Counts the epochs of all trials."""
        alive, total, done = len(self.configs), 0, 0
        for end in rungs(self.configs[0].epochs, self._factor):
            total += alive * (end - done)
            alive, done = -(-alive // self._factor), end
        return tqdm.tqdm(
            total=total,
            initial=sum(len(trial["scores"]) for trial in self.trials),
            unit=" epochs",
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )

    def _read(self) -> None:
        """Takes over what the file says of this very search."""
        content = records.read_json(self.path, ("description", "trials"), _REMEDY)
        if content is None:
            return
        try:
            factor = content["description"]["factor"]
            configs = content["description"]["configs"]
            if content["schema"] == 1:  # all settings in place of an identity
                configs = [Config.from_dict(config).identity() for config in configs]
            is_same = (factor, configs) == (self._factor, self._describe()["configs"])
            # Searches begun before it was written have none.
            trained_on = content["description"].get("data_sha256")
            is_same &= None in (trained_on, self._data_sha256) or (
                trained_on == self._data_sha256
            )
            if is_same:
                for own, stored in zip(self.trials, content["trials"], strict=True):
                    own |= {"epochs": stored["epochs"], "scores": stored["scores"]}
        except (ValueError, KeyError, TypeError, ConfigError) as error:
            raise records.damaged(self.path, error, _REMEDY) from error
        if not is_same:
            raise records.RecordsError(f"{self.path} holds another search: {_REMEDY}")

    def _write(self) -> None:
        content = {"description": self._describe(), "trials": self.trials}
        records.write_json(self.path, content)

    def _describe(self) -> dict[str, Any]:
        """What makes this search the one that it is."""
        return {
            "factor": self._factor,
            "configs": self._identity(range(len(self.configs))),
            "data_sha256": self._data_sha256,
        }
