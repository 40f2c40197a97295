"""What a config stands for: the data, the first state and the compiled programs."""

import concurrent.futures
import time
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax

from mnist_jax import (
    batching,
    data,
    digests,
    distillation,
    flops,
    models,
    optim,
    train_step,
)
from mnist_jax.config import Config, ConfigError, decisive
from mnist_jax.models.layers import IMAGES_PER_NORM
from mnist_jax.parallel import devices as devices_lib
from mnist_jax.parallel import placement, programs
from mnist_jax.trainer import Trainer


class Setup(NamedTuple):
    """Everything that training needs."""

    config: Config
    dataset: data.Dataset
    train_indices: np.ndarray  # int [N], of the training set
    validation_indices: np.ndarray  # int [M], of the training set
    schedule: optax.Schedule  # compiled
    trainer: Trainer
    predict: Callable  # see programs.make_predict


def prepare(
    config: Config,
    find_teacher: Callable[[data.Dataset], distillation.Teacher | None] | None = None,
) -> Setup:
    """Loads the data and builds the programs; writes nothing.

    Args:
      config: settings of the run.
      find_teacher: of a run with --teacher, see `teacher.fit`.

    Raises:
      ConfigError, DatasetError, DeviceError: see their messages.
    """
    devices_lib.warn_of_slow_precision(config.precision)
    dataset = load_data(config)
    train_indices, validation_indices = batching.split(dataset.train_labels, config)
    model = build_model(
        config, dataset.train_images.shape[1:], len(dataset.class_names)
    )
    num_steps = batching.count_steps(config, len(train_indices))
    schedule = optim.make_schedule(
        config.schedule, config.learning_rate, num_steps * config.epochs
    )
    trainer = make_trainer(
        config,
        model,
        schedule,
        dataset.train_images,
        dataset.train_labels,
        train_indices,
        find_teacher and find_teacher(dataset),
    )
    return Setup(
        config=config,
        dataset=dataset,
        train_indices=train_indices,
        validation_indices=validation_indices,
        # Compiled as a whole: one by one its operations take a second at first.
        schedule=jax.jit(schedule),
        trainer=trainer,
        predict=programs.make_predict(
            train_step.make_eval_step(model, config.eval_views), trainer.devices
        ),
    )


def load_data(config: Config) -> data.Dataset:
    """The data set that `config` names; raises as `data.load`."""
    return data.load(config.dataset, config.data_dir, config.raw_dir, config.preprocess)


def compile_programs(setup: Setup) -> float:
    """Compiles both programs, so that timings exclude it; returns the seconds."""
    began = time.perf_counter()
    images, trainer = setup.dataset.train_images[:1], setup.trainer
    # The chunk is given the state's own arrays, so prediction needs others.
    params = jax.device_get(trainer.state.eval_params)
    params = placement.replicate(params, trainer.devices)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        predicted = pool.submit(setup.predict, params, images)
        trainer.compile()
        predicted.result()
    return time.perf_counter() - began


def build_model(
    config: Config, image_shape: tuple[int, ...], num_classes: int
) -> nn.Module:
    """The module that `config` names.

    Raises:
      ConfigError: the images are too small for it.
    """
    model = models.make_model(
        config.model, num_classes, config.precision, **config.model_settings()
    )
    height, width, channels = image_shape
    try:
        shapes = train_step.init_params_shapes(model, image_shape)
        fits = all(0 not in leaf.shape for leaf in jax.tree.leaves(shapes))
    except Exception:  # whatever becomes of an empty array
        fits = False
        # With larger images an error of the model's own comes again, and is raised.
        train_step.init_params_shapes(model, (8 * height, 8 * width, channels))
    if not fits:
        raise ConfigError(
            f"--model={config.model}: the {height}x{width} images of {config.dataset} "
            "are too small for it: give another model, such as --model=mlp"
        )
    return model


def make_trainer(
    config: Config,
    model: nn.Module,
    schedule: optax.Schedule,
    images: np.ndarray,
    labels: np.ndarray,
    indices: np.ndarray,
    teacher: distillation.Teacher | None = None,
) -> Trainer:
    """The driver that trains `model` by `config`, on devices that suit its work.

    Args:
      config: settings of the run.
      model: as `build_model` makes it.
      schedule: the learning rate.
      images, labels: the training set, uint8 [N, H, W, 1] and int32 [N].
      indices: int [n], of those images that are trained on.
      teacher: to learn from.

    Raises:
      ConfigError, DeviceError: see `batching.count_steps`, `devices.choose_devices`.
    """
    optimizer = optim.make_optimizer(
        config.optimizer, schedule, config.weight_decay, config.clip_norm
    )
    image_shape = images.shape[1:]
    state = train_step.init_state(
        model, optimizer, config.seed, image_shape, config.ema_decay > 0
    )
    work = flops.of_model(model, state.params, image_shape)

    hparams = {"seed": np.uint32(config.seed)}
    if teacher is not None:
        # Params are arguments of the program; as constants they would be part of it.
        hparams["teacher"] = teacher.params
    min_images = devices_lib.min_images_per_device(work)
    if config.batch_norm:  # the same statistics as on one device
        min_images = max(min_images, IMAGES_PER_NORM)
    devices = devices_lib.choose_devices(
        config.num_devices, config.batch_size, min_images
    )
    host_images = config.data_placement == "host"
    if config.data_placement == "auto":
        host_images = devices_lib.are_large(images.nbytes, devices)
    return Trainer(
        make_step=step_maker(
            config, model, optimizer, devices_lib.microbatch_size(work), teacher
        ),
        state=jax.device_get(state),
        hparams=hparams,
        images=images,
        labels=labels,
        order=lambda epoch: batching.epoch_order(
            indices, config.batch_size, config.seed, epoch
        ),
        num_steps=batching.count_steps(config, len(indices)),
        devices=devices,
        host_images=host_images,
    )


def step_maker(
    config: Config,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    microbatch_size: int | None,
    teacher: distillation.Teacher | None = None,
) -> programs.MakeStep:
    """What `programs.make_train_chunk` takes; arguments are as of `make_trainer`."""

    def make_step(traced):
        distill = None
        if teacher is not None:
            own = teacher._replace(params=traced["teacher"])
            distill = distillation.make_loss(own, config.temperature)
        return train_step.make_train_step(
            model,
            optimizer,
            augmentation=batching.make_augmentation(config),
            label_smoothing=config.label_smoothing,
            ema_decay=config.ema_decay,
            distill=distill,
            distill_weight=config.distill_weight,
            average=programs.average,
            microbatch_size=microbatch_size,
        )

    return make_step


def fingerprint(setup: Setup, teacher_sha256: str | None = None) -> str:
    """A digest of what processes that train one run must have alike.

    Args:
      setup: of this process.
      teacher_sha256: of the runs that it learns from.
    """
    config = decisive(setup.config.to_dict())
    has_start = setup.config.init_from is not None
    others = (config, has_start, teacher_sha256, setup.trainer.images is None)
    others += (len(setup.trainer.devices), jax.__version__)
    return digests.of_json([*others, setup.dataset.sha256])
