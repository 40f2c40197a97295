"""Runs that differ in numbers alone, trained together in one program."""

import dataclasses
import io
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mnist_jax import cost, datasets, metrics, models, optim, parallel, records, step
from mnist_jax.config import Config, ConfigError
from mnist_jax.train.loop import next_chunk
from mnist_jax.train.run import count_steps, epoch_order

# Lanes step together if their states stay in a core's cache from step to step, and if
# a model multiplies no more than this per image: else its products fill a core alone.
_BYTES_IN_CACHE, _MOST_TOGETHER = 2**20, 1_000_000


class Lanes:
    """The runs of some configs, as far as they are trained.

    Each lane is the run that its config stands for: the same data, first values, order
    of images and random numbers, up to the order of summation.

    Attributes:
      configs: of the lanes, L of them.
      epoch: how many are done.
    """

    def __init__(self, configs: Sequence[Config]):
        """Loads the data and builds the programs.

        Args:
          configs: differ in `step.LANE_SETTINGS` alone.

        Raises:
          ConfigError: they differ in more, or see `train.run.prepare`.
        """
        first = configs[0]
        for config in configs:
            if other := set(config.differences(first)) - set(step.LANE_SETTINGS):
                raise ConfigError(
                    f"lanes differ in {', '.join(sorted(other))}: expected to differ "
                    f"in {', '.join(step.LANE_SETTINGS)} alone; train them apart"
                )
        model = models.build_model(first)
        if hasattr(model, "dropout"):
            configs = [
                dataclasses.replace(config, dropout=model.dropout)
                if config.dropout is None
                else config
                for config in configs
            ]
        self.configs, self.epoch = list(configs), 0
        self.dataset = datasets.load(first.dataset, first.data_dir, first.raw_dir)
        labels = self.dataset.train_labels
        splits = [
            datasets.split_validation(labels, config.validation_fraction, config.seed)
            for config in configs
        ]
        self._rows = {
            "train": np.stack([rows for rows, _ in splits]),
            "validation": np.stack([rows for _, rows in splits]),
            "test": np.tile(
                np.arange(len(self.dataset.test_labels)), (len(configs), 1)
            ),
        }
        self.num_steps = count_steps(first, self._rows["train"].shape[1])
        hyper = {
            name: [getattr(c, name) for c in configs] for name in step.LANE_SETTINGS
        }
        self._hyper = {
            name: np.array(values, np.uint32 if name == "seed" else np.float32)
            for name, values in hyper.items()
            if name == "seed" or len(set(values)) > 1
        }
        schedule = optim.make_schedule(first.schedule, first.learning_rate, 1)
        decay = jnp.float32(0) if "weight_decay" in self._hyper else None
        optimizer = optim.make_optimizer(first, schedule, decay)
        states = step.init_states(model, optimizer, self._hyper["seed"])
        self._state = jax.tree.map(lambda *x: np.stack(x), *jax.device_get(states))
        work = cost.of_model(model, states[0].params)
        devices = parallel.choose_devices(first.num_devices)
        self.devices = devices[: len(configs)]
        total = self.num_steps * first.epochs
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(states[0]))
        most = 1 if work.multiplications > _MOST_TOGETHER else _BYTES_IN_CACHE // size
        lanes_per_device = -(-len(configs) // len(self.devices))
        self._chunk = parallel.make_lane_chunk(
            step.make_lane_step(model, first, total, parallel.most_at_once(work)),
            self.devices,
            group_size=_largest_divisor(lanes_per_device, most),
        )
        self._predict = parallel.make_lane_predict(
            step.make_eval_step(model), self.devices
        )
        self._data = parallel.replicate(
            (self.dataset.train_images, labels), self.devices
        )
        self._chunk_steps = 8
        self._place()

    def __len__(self) -> int:
        return len(self.configs)

    def train_epoch(self) -> list[dict[str, float]]:
        """Trains all lanes for one epoch.

        Returns:
          For each lane train_loss, train_accuracy and, where there is a validation
          part, validation_loss and validation_accuracy; not finite where it diverged.
        """
        orders = [
            epoch_order(rows, config.batch_size, config.seed, self.epoch)
            for rows, config in zip(self._rows["train"], self.configs, strict=True)
        ]
        order = self._spread(np.stack(orders))
        history = step.Metrics(*np.zeros((2, len(self), self.num_steps), np.float32))
        history, done = self._spread(history), 0
        while done < self.num_steps:
            last = min(self.num_steps, done + self._chunk_steps)
            began = time.perf_counter()
            self._placed, history = self._chunk(
                self._placed,
                history,
                self._placed_hyper,
                *self._data,
                order,
                done,
                last,
            )
            jax.block_until_ready(history)
            seconds = time.perf_counter() - began
            self._chunk_steps = next_chunk(last - done, seconds)
            done = last
        self.epoch += 1
        history = self._gather(history)
        scores = [
            {"train_loss": float(loss.mean()), "train_accuracy": float(right.mean())}
            for loss, right in zip(history.loss, history.accuracy, strict=True)
        ]
        labels = self.dataset.train_labels[self._rows["validation"]]
        if labels.size:
            logits = self._logits("validation")
            for score, own, right in zip(scores, logits, labels, strict=True):
                loss, accuracy = metrics.score(own, right)
                score |= {"validation_loss": loss, "validation_accuracy": accuracy}
        return scores

    def save(self, paths: Sequence[Path]) -> None:
        """Writes each lane's state to its file."""
        state = self._gather(self._placed)
        for lane, path in enumerate(paths):
            buffer = io.BytesIO()
            np.savez(buffer, *[leaf[lane] for leaf in jax.tree.leaves(state)])
            records.write_atomically(path, buffer.getvalue())

    def restore(self, paths: Sequence[Path], epoch: int) -> None:
        """Goes on from where each lane was saved, after so many epochs.

        Raises:
          ConfigError: a file is missing, damaged or of another model.
        """
        own, tree = jax.tree.flatten(self._state)
        lanes = []
        for path in paths:
            try:
                # From memory: np.load leaves a damaged file open.
                content = io.BytesIO(path.read_bytes())
                with np.load(content, allow_pickle=False) as file:
                    leaves = [file[name] for name in file.files]
            except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
                raise ConfigError(
                    f"{path} cannot be read ({error}): start the search anew in "
                    "another folder"
                ) from error
            kinds = [(leaf.shape, leaf.dtype) for leaf in leaves]
            if kinds != [(leaf.shape[1:], leaf.dtype) for leaf in own]:
                raise ConfigError(
                    f"{path} holds another model's state: start the search anew in "
                    "another folder"
                )
            lanes.append(leaves)
        leaves = [np.stack(values) for values in zip(*lanes, strict=True)]
        self.epoch, self._state = epoch, jax.tree.unflatten(tree, leaves)
        self._place()

    def params(self) -> list[Any]:
        """Of each lane, on the host."""
        params = self._gather(self._placed).params
        return [jax.tree.map(lambda x, i=i: x[i], params) for i in range(len(self))]

    def test_probabilities(self) -> np.ndarray:
        """Of every test image by each lane: float32 [L, N, K]."""
        return np.stack([metrics.softmax(logits) for logits in self._logits("test")])

    def _logits(self, part: str) -> np.ndarray:
        images = (
            parallel.replicate(self.dataset.test_images, self.devices)
            if part == "test"
            else self._data[0]
        )
        rows = self._spread(self._rows[part].astype(np.int32))
        return self._gather(self._predict(self._placed.params, images, rows))

    def _place(self) -> None:
        self._placed, self._placed_hyper = self._spread((self._state, self._hyper))

    def _spread(self, tree: Any) -> Any:
        lanes = parallel.spread_lanes(tree, len(self.devices))
        return parallel.distribute(lanes, self.devices)

    def _gather(self, tree: Any) -> Any:
        """Arrays [D, l, ..] on the devices -> [L, ..] on the host."""
        return jax.tree.map(
            lambda x: np.asarray(x).reshape(-1, *x.shape[2:])[: len(self)], tree
        )


def _largest_divisor(number: int, most: int) -> int:
    """Of `number`, at most `most`; 1 if that is less."""
    return max(n for n in range(1, number + 1) if number % n == 0 and n <= max(1, most))
