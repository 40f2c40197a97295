"""What a config stands for: the data, the first state and the compiled programs."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax

from mnist_jax import cost, datasets, digests, models, optim, parallel, step
from mnist_jax.config import NOT_IDENTITY, Config, ConfigError

_MOST_STEPS = 2**31 - 1  # that an int32 counts


class Programs(NamedTuple):
    """What trains a model."""

    work: cost.Work
    devices: list[jax.Device]
    state: step.TrainState  # before the first step
    chunk: Callable  # see parallel.make_train_chunk


class Run(NamedTuple):
    """Everything that training needs and that does not change while it runs."""

    config: Config
    dataset: datasets.Dataset
    train_rows: np.ndarray  # int [N], of the training set
    validation_rows: np.ndarray  # int [M], of the training set
    num_steps: int  # per epoch
    schedule: optax.Schedule  # compiled
    devices: list[jax.Device]
    state: step.TrainState  # before the first step, on the host
    chunk: Callable  # see parallel.make_train_chunk
    predict: Callable  # see parallel.make_predict


def prepare(config: Config) -> Run:
    """Loads the data and builds the programs; writes nothing."""
    model = models.build_model(config)
    dataset = datasets.load(config.dataset, config.data_dir, config.raw_dir)
    train_rows, validation_rows = datasets.split_validation(
        dataset.train_labels, config.validation_fraction, config.seed
    )
    num_steps = count_steps(config, len(train_rows))
    schedule = optim.make_schedule(
        config.schedule, config.learning_rate, num_steps * config.epochs
    )
    programs = make_programs(config, model, schedule)
    eval_step = step.make_eval_step(model)
    return Run(
        config=config,
        dataset=dataset,
        train_rows=train_rows,
        validation_rows=validation_rows,
        num_steps=num_steps,
        # Compiled as a whole: one by one its operations take a second at first.
        schedule=jax.jit(schedule),
        devices=programs.devices,
        state=jax.device_get(programs.state),
        chunk=programs.chunk,
        predict=parallel.make_predict(eval_step, programs.devices),
    )


def fingerprint(run: Run) -> str:
    """A digest of what processes that train one run must have alike."""
    config = run.config.to_dict()
    for name in NOT_IDENTITY:
        del config[name]
    data = run.dataset
    arrays = {
        "train": (data.train_images, data.train_labels, run.train_rows),
        "test": (data.test_images, data.test_labels),
    }
    others = (config, len(run.devices), jax.__version__)
    return digests.of_json([*others, digests.of_arrays(arrays)])


def count_steps(config: Config, num_images: int) -> int:
    """Whole batches in an epoch of so many images.

    Raises:
      ConfigError: there is none.
    """
    if num_images == 0:
        raise ConfigError(
            f"--validation_fraction={config.validation_fraction}: it leaves no image "
            f"of {config.dataset} to train on; lower it"
        )
    if num_images < config.batch_size:
        raise ConfigError(
            f"--batch_size={config.batch_size}: {config.dataset} has {num_images} "
            "images to train on; give that many or fewer"
        )
    num_steps = num_images // config.batch_size
    if num_steps * config.epochs > _MOST_STEPS:
        raise ConfigError(
            f"--epochs={config.epochs}: more than {_MOST_STEPS} steps of "
            f"{config.batch_size} images; give {_MOST_STEPS // num_steps} or fewer"
        )
    return num_steps


def make_programs(
    config: Config, model: nn.Module, schedule: optax.Schedule
) -> Programs:
    """The program that trains `model` by `config`, made for the model's work.

    Raises:
      ConfigError: see `parallel.choose_devices`.
    """
    optimizer = optim.make_optimizer(config, schedule)
    state = step.init_state(model, optimizer, config.seed)
    work = cost.of_model(model, state.params)
    devices = parallel.choose_devices(
        config.num_devices, config.batch_size, parallel.least_images(work)
    )
    train_step = step.make_train_step(
        model,
        optimizer,
        augmentation=config.augment,
        label_smoothing=config.label_smoothing,
        average=parallel.average,
        most_at_once=parallel.most_at_once(work),
    )
    chunk = parallel.make_train_chunk(train_step, devices)
    return Programs(work, devices, state, chunk)


def epoch_order(rows: np.ndarray, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """The batches of one epoch, a function of (seed, epoch) alone.

    Args:
      rows: int [N], the rows to draw from.
      batch_size: B.
      seed: the run's seed.
      epoch: 0 for the first.

    Returns:
      int32 [N // B, B]; each row once at most, other leftovers in each epoch.
    """
    shuffled = np.random.default_rng((seed, epoch)).permutation(rows)
    num_steps = len(rows) // batch_size
    return shuffled[: num_steps * batch_size].reshape(num_steps, -1).astype(np.int32)
