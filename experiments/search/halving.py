"""Successive halving over groups of lanes (Jamieson and Talwalkar, 2016).

All trials train for a while, the better part of them goes on, and so on to the end.
Trials that differ in numbers alone are one group, whose lanes train together.
"""

import json
import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tqdm

from mnist_jax import records
from mnist_jax.config import Config
from mnist_jax.step import LANE_SETTINGS
from mnist_jax.train.lanes import Lanes


def rungs(epochs: int, factor: int) -> list[int]:
    """Epochs after which trials are dropped, and the last: 9 by thirds is 1, 3, 9."""
    ends = [epochs]
    while factor > 1 and ends[0] // factor >= 1:
        ends.insert(0, ends[0] // factor)
    return ends


def group(configs: Sequence[Config]) -> list[list[int]]:
    """Places of configs that can be lanes of one program, most first."""
    groups: dict[Any, list[int]] = {}
    for i, config in enumerate(configs):
        shared = {k: v for k, v in config.to_dict().items() if k not in LANE_SETTINGS}
        groups.setdefault(json.dumps(shared), []).append(i)
    return sorted(groups.values(), key=len, reverse=True)


class Search:
    """The trials of a search and how far they are; one JSON file holds it all.

    Attributes:
      trials: for each its `settings`, the `epochs` it is to train for, and per epoch
        the scores of `Lanes.train_epoch` in `scores`.
    """

    def __init__(self, path: Path, description: dict[str, Any]):
        """Starts or goes on.

        Args:
          path: of the JSON file.
          description: what decides the search; `settings` holds those of its trials.

        Raises:
          records.RecordsError: the file is damaged, or of another search.
        """
        self.path, self.description = path, description
        self.trials = [
            {"settings": settings, "epochs": 0, "scores": []}
            for settings in description["settings"]
        ]
        if path.exists():
            try:
                content = json.loads(path.read_text())
                is_same = content["description"] == json.loads(json.dumps(description))
                self.trials = content["trials"] if is_same else self.trials
            except (ValueError, KeyError, TypeError) as error:
                raise records.RecordsError(
                    f"{path} is damaged ({records.first_line(error)}): delete it, or "
                    "give another --workdir"
                ) from error
            if not is_same:
                raise records.RecordsError(
                    f"{path} holds another search: give another --workdir, or delete it"
                )

    def run(self, configs: Sequence[Config], factor: int) -> None:
        """Trains all trials as far as successive halving takes them.

        Args:
          configs: of the trials.
          factor: of those that train on to a rung, all but one in so many are dropped
            there; 1 to drop none.
        """
        with self._bar(len(configs), configs[0].epochs, factor) as bar:
            self._run(configs, factor, bar)

    def _run(self, configs, factor, bar):
        alive = list(range(len(configs)))
        for end in rungs(configs[0].epochs, factor):
            for trial in alive:
                self.trials[trial]["epochs"] = end
            for members in group(configs):
                members = [i for i in members if i in alive]
                if any(len(self.trials[i]["scores"]) < end for i in members):
                    self._train(members, configs, end, bar)
            if factor > 1:
                alive = self.best(alive)[: -(-len(alive) // factor)]

    def best(self, trials: Sequence[int]) -> list[int]:
        """Trials by the validation accuracy of their last epoch, then its loss."""

        def badness(i):
            last = self.trials[i]["scores"][-1]
            loss = last["validation_loss"]
            loss = loss if math.isfinite(loss) else math.inf
            return -last["validation_accuracy"], loss

        return sorted(trials, key=badness)

    def ranking(self) -> list[int]:
        """All trials, best first: who was kept longer is better."""
        best = self.best(range(len(self.trials)))
        return sorted(best, key=lambda i: -len(self.trials[i]["scores"]))

    def _train(self, members, configs, end, bar):
        lanes = Lanes([configs[i] for i in members])
        done = len(self.trials[members[0]]["scores"])
        if done:
            lanes.restore([self._state(i, done) for i in members], done)
        while lanes.epoch < end:
            scores = lanes.train_epoch()
            lanes.save([self._state(i, lanes.epoch) for i in members])
            for i, score in zip(members, scores, strict=True):
                self.trials[i]["scores"].append(score)
            self._write()  # from here on the new states count
            bar.update(len(members))
            for i in members:
                self._state(i, lanes.epoch - 1).unlink(missing_ok=True)

    def forget_states(self) -> None:
        """Removes what only `trained`, or a search that is not at its end, needs."""
        shutil.rmtree(self.path.parent / "states", ignore_errors=True)

    def trained(self, configs: Sequence[Config]) -> Lanes:
        """All trials as they ended, where all are lanes of one program."""
        lanes = Lanes(configs)
        epochs = configs[0].epochs
        lanes.restore([self._state(i, epochs) for i in range(len(configs))], epochs)
        return lanes

    def _bar(self, alive: int, epochs: int, factor: int) -> tqdm.tqdm:
        """Counts the epochs of all trials."""
        total, done = 0, 0
        for end in rungs(epochs, factor):
            total += alive * (end - done)
            alive, done = -(-alive // factor), end
        return tqdm.tqdm(
            total=total,
            initial=sum(len(trial["scores"]) for trial in self.trials),
            unit=" epochs",
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )

    def _state(self, trial: int, epoch: int) -> Path:
        return self.path.parent / "states" / f"{trial}-{epoch}.npz"

    def _write(self) -> None:
        content = {"description": self.description, "trials": self.trials}
        text = json.dumps(content, indent=1) + "\n"
        records.write_atomically(self.path, text.encode())
