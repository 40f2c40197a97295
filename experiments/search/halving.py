"""Successive halving over groups of lanes (Jamieson and Talwalkar, 2016).

All trials train for a while, the better part of them goes on, and so on to the end.
Trials that differ in numbers alone are one group, whose lanes train together.
"""

import json
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tqdm

from mnist_jax import records
from mnist_jax.config import NOT_IDENTITY, Config
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
          configs: of the trials, as long as those that are kept to the end train.
          settings: in what each of them differs from the others.
          factor: of those that train on to a rung, all but one in so many are dropped
            there; 1 to drop none.

        Raises:
          records.RecordsError: the file is damaged, or of another search.
        """
        self.path, self.configs, self.factor = path, configs, factor
        description = {
            "factor": factor,
            "configs": [
                {k: v for k, v in config.to_dict().items() if k not in NOT_IDENTITY}
                for config in configs
            ],
        }
        self.description = json.loads(json.dumps(description))
        self.trials = [{"settings": own, "epochs": 0, "scores": []} for own in settings]
        if path.exists():
            try:
                content = json.loads(path.read_text())
                is_same = content["description"] == self.description
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

    def run(self) -> None:
        """Trains all trials as far as successive halving takes them."""
        with self._bar() as bar:
            self._run(bar)

    def _run(self, bar):
        alive = list(range(len(self.configs)))
        for end in rungs(self.configs[0].epochs, self.factor):
            for trial in alive:
                self.trials[trial]["epochs"] = end
            for members in group(self.configs):
                members = [i for i in members if i in alive]
                if any(len(self.trials[i]["scores"]) < end for i in members):
                    self._train(members, end, bar)
            if self.factor > 1:
                alive = self.best(alive, end)[: -(-len(alive) // self.factor)]

    def best(self, trials: Sequence[int], epoch: int = 0) -> list[int]:
        """Trials by the validation accuracy after `epoch`, then by the loss.

        Args:
          trials: their numbers.
          epoch: 0 for the last that each was trained for. A rung is decided by its own
            epoch, also when the search goes on later.
        """

        def badness(i):
            last = self.trials[i]["scores"][epoch - 1]
            loss = last["validation_loss"]
            loss = loss if math.isfinite(loss) else math.inf
            return -last["validation_accuracy"], loss

        return sorted(trials, key=badness)

    def ranking(self) -> list[int]:
        """All trials, best first: who was kept longer is better."""
        best = self.best(range(len(self.trials)))
        return sorted(best, key=lambda i: -len(self.trials[i]["scores"]))

    def _train(self, members, end, bar):
        lanes = Lanes([self.configs[i] for i in members])
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

    def trained(self) -> Lanes:
        """All trials as they ended, where all are lanes of one program."""
        lanes, epochs = Lanes(self.configs), self.configs[0].epochs
        paths = [self._state(i, epochs) for i in range(len(self.configs))]
        lanes.restore(paths, epochs)
        return lanes

    def _bar(self) -> tqdm.tqdm:
        """Counts the epochs of all trials."""
        alive, total, done = len(self.configs), 0, 0
        for end in rungs(self.configs[0].epochs, self.factor):
            total += alive * (end - done)
            alive, done = -(-alive // self.factor), end
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
