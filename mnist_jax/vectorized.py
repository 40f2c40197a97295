"""Runs that differ in numbers alone, trained together in one program."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mnist_jax import batching, evaluation, flops, metrics, models, optim, train_step
from mnist_jax.config import Config, ConfigError
from mnist_jax.member_step import MEMBER_SETTINGS, make_member_step, swept_values
from mnist_jax.models.layers import largest_divisor
from mnist_jax.parallel import devices as devices_lib
from mnist_jax.parallel import placement, programs
from mnist_jax.storage.checkpoints import Checkpoints
from mnist_jax.train_step import TrainState
from mnist_jax.trainer import Trainer
from mnist_jax.training_setup import build_model, load_data

# Members step together if their states stay in a core's cache from step to step, and
# if the model's matmuls are no larger than this: else one member's fill a core.
_BYTES_IN_CACHE, _MAX_MACS_TOGETHER = 2**20, 1_000_000
_SHARED = ("raw_dir", "data_dir")  # what is no setting of the run, but of its data
_LACKING = {
    "init_from": "no other run to start from",
    "teacher": "no other run to learn from",
    "data_placement": "their images on the devices",
}


class VectorizedRuns:
    """The runs of some configs, as far as they are trained.

    Each member is the run that its config stands for: the same data, first values,
    order of images and random numbers, up to the order of summation.

    Attributes:
      configs: of the members, M of them.
      dataset: that they share.
      trainer: their driver.
      epoch: how many are done.
    """

    def __init__(self, configs: Sequence[Config]):
        """Loads the data and builds the programs.

        Args:
          configs: differ in `MEMBER_SETTINGS` alone.

        Raises:
          ConfigError: they differ in more, have another run to learn from or not as
            many images, or see `training_setup`.
        """
        first = configs[0]
        for config in configs:
            different = {x for x in _SHARED if getattr(config, x) != getattr(first, x)}
            different |= set(config.differences(first))
            if other := different - set(MEMBER_SETTINGS):
                raise ConfigError(
                    f"members differ in {', '.join(sorted(other))}: expected to differ "
                    f"in {', '.join(MEMBER_SETTINGS)} alone; train them one by one"
                )
            for name, lack in _LACKING.items():
                if (value := getattr(config, name)) not in (None, "auto", "device"):
                    raise ConfigError(
                        f"--{name}={value}: vectorized runs have {lack}: leave it out, "
                        "or train the runs one by one"
                    )
        self.configs, self.epoch = [_with_dropout(config) for config in configs], 0
        self.dataset = load_data(first)
        labels = self.dataset.train_labels
        splits = [batching.split(labels, config) for config in configs]
        sizes = [len(indices) for indices, _ in splits]
        if len(set(sizes)) > 1:
            raise ConfigError(
                f"--validation_fold: these parts leave from {min(sizes):,} to "
                f"{max(sizes):,} images to train on, which cannot be trained together: "
                "give --validation_by=block, or train them one by one"
            )
        self._indices = {
            "train": np.stack([indices for indices, _ in splits]),
            "validation": np.stack([indices for _, indices in splits]),
            "test": np.tile(np.arange(len(self.dataset.test_labels)), (len(self), 1)),
        }
        image_shape = self.dataset.train_images.shape[1:]
        model = build_model(first, image_shape, len(self.dataset.class_names))
        self.trainer = self._make_trainer(model)
        self._predict = programs.make_vectorized_predict(
            train_step.make_eval_step(model, first.eval_views), self.trainer.devices
        )

    def __len__(self) -> int:
        return len(self.configs)

    def _make_trainer(self, model: nn.Module) -> Trainer:
        first, image_shape = self.configs[0], self.dataset.train_images.shape[1:]
        num_steps = batching.count_steps(first, self._indices["train"].shape[1])
        hparams = swept_values(self.configs)
        schedule = optim.make_schedule(first.schedule, first.learning_rate, 1)
        decay = jnp.float32(0) if "weight_decay" in hparams else first.weight_decay
        optimizer = optim.make_optimizer(
            first.optimizer, schedule, decay, first.clip_norm
        )
        states = train_step.init_states(
            model, optimizer, hparams["seed"], image_shape, first.ema_decay > 0
        )
        work = flops.of_model(model, states[0].params, image_shape)
        devices = devices_lib.choose_devices(first.num_devices)[: len(self)]
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(states[0]))
        is_large = work.macs > _MAX_MACS_TOGETHER
        return Trainer(
            make_step=lambda swept: make_member_step(
                model,
                first,
                swept,
                num_steps * first.epochs,
                devices_lib.microbatch_size(work),
            ),
            state=jax.tree.map(lambda *x: np.stack(x), *jax.device_get(states)),
            hparams=hparams,
            images=self.dataset.train_images,
            labels=self.dataset.train_labels,
            order=self._order,
            num_steps=num_steps,
            devices=devices,
            num_members=len(self),
            group_size=largest_divisor(
                -(-len(self) // len(devices)),
                1 if is_large else _BYTES_IN_CACHE // size,
            ),
        )

    def _order(self, epoch: int) -> np.ndarray:
        """int32 [M, S, B]"""
        members = zip(self._indices["train"], self.configs, strict=True)
        return np.stack(
            [batching.epoch_order(x, c.batch_size, c.seed, epoch) for x, c in members]
        )

    def train_epoch(self) -> list[dict[str, float]]:
        """Trains all members for one epoch.

        Returns:
          For each member train_<name> of the step metrics and, where there is a
          validation part, validation_<name> of the epoch metrics; not finite where it
          diverged.
        """
        history = self.trainer.run_epoch(self.epoch)
        self.epoch += 1
        scores = [
            {f"train_{name}": float(x[i].mean()) for name, x in history.items()}
            for i in range(len(self))
        ]
        labels = self.dataset.train_labels[self._indices["validation"]]
        if labels.size:
            members = zip(scores, self._logits("validation"), labels, strict=True)
            for score, logits, true in members:
                of_epoch = metrics.score(logits, true).items()
                score |= {f"validation_{name}": value for name, value in of_epoch}
        return scores

    def save(self, workdir: Path, identity: Any) -> None:
        """Saves all members as one checkpoint, whose step is the epoch."""
        state = self.trainer.fetch_state()
        with Checkpoints(workdir, identity) as checkpoints:
            checkpoints.save(self.epoch, state.eval_params, self._training_tree(state))

    def restore(
        self, workdir: Path, identity: Any, epoch: int, members: Sequence[int], of: int
    ) -> None:
        """Goes on from a checkpoint.

        Args:
          workdir, identity: as they were saved with.
          epoch: after which.
          members: which of the saved ones these are.
          of: how many were saved.

        Raises:
          CheckpointError: it is missing, damaged or of other runs.
        """
        state = self.trainer.fetch_state()
        params, training = jax.tree.map(
            lambda x: np.zeros((of, *x.shape[1:]), x.dtype),
            (state.params, self._training_tree(state)),
        )
        with Checkpoints(workdir, identity, read_only=True) as checkpoints:
            params, training, _ = checkpoints.restore(params, training, step=epoch)
        treedef = jax.tree.structure(state.opt_state)
        opt_state = jax.tree.unflatten(treedef, training["opt_state"])
        saved = TrainState.of_saved(
            training["step"], params, opt_state, training.get("params")
        )
        self.trainer.set_state(jax.tree.map(lambda x: x[list(members)], saved))
        self.epoch = epoch

    def _training_tree(self, state: TrainState) -> dict[str, Any]:
        # Without its structure, which has a part more where weight decay is swept.
        opt_state = jax.tree.leaves(state.opt_state)
        history = self.trainer.metrics()
        tree = {"step": state.step, "opt_state": opt_state, "history": history}
        return tree if state.ema_params is None else tree | {"params": state.params}

    def params(self) -> list[Any]:
        """Of each member, on the host."""
        params = self.trainer.fetch_state().eval_params
        return [jax.tree.map(lambda x, i=i: x[i], params) for i in range(len(self))]

    def test_probabilities(self) -> np.ndarray:
        """Of every test image by each member: float32 [M, N, K]."""
        return np.stack([evaluation.softmax(logits) for logits in self._logits("test")])

    def validation(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each member's validation part the images and the probabilities.

        Returns:
          Indices of the training set, int [M, N], and float32 [M, N, K].
        """
        probabilities = [evaluation.softmax(x) for x in self._logits("validation")]
        return self._indices["validation"], np.stack(probabilities)

    def _logits(self, part: str) -> np.ndarray:
        devices, images = self.trainer.devices, self.trainer.images
        if part == "test":
            images = placement.replicate(self.dataset.test_images, devices)
        indices = placement.shard_members(
            self._indices[part].astype(np.int32), len(devices)
        )
        logits = self._predict(
            self.trainer.state.eval_params,
            images,
            placement.distribute(indices, devices),
        )
        return placement.gather_members(logits, len(self))


def _with_dropout(config: Config) -> Config:
    """With the model's own rate, where the model drops units and none is given."""
    default = models.default_settings(config.model).get("dropout")
    if config.dropout is not None or default is None:
        return config
    return dataclasses.replace(config, dropout=default)
