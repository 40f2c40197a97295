"""A trained run put to use: its checkpoint and images in, probabilities out."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from mnist_jax import data, evaluation, metrics, train_step
from mnist_jax.config import Config
from mnist_jax.parallel import devices as devices_lib
from mnist_jax.parallel import placement, programs
from mnist_jax.storage import records
from mnist_jax.storage.checkpoints import Checkpoints
from mnist_jax.storage.stored_run import check_workdir, read_config
from mnist_jax.training_setup import build_model


class Classifier(NamedTuple):
    """A run's last checkpoint, ready for use."""

    step: int  # that the checkpoint was taken after
    model: nn.Module
    params: Any  # on every device
    predict_logits: Callable[[Any, np.ndarray], np.ndarray]  # see programs.make_predict

    def classify(self, images: np.ndarray) -> np.ndarray:
        """uint8 [N, H, W, 1] -> logits float32 [N, K]."""
        return self.predict_logits(self.params, images)


class Evaluation(NamedTuple):
    """The scores of a run's last checkpoint."""

    dataset: str
    epoch: int  # that are finished
    num_epochs: int  # of the whole run
    # 'validation' and, of a complete run, 'test': `metrics.score` and 'num_images'
    scores: dict[str, dict[str, Any]]

    @property
    def is_complete(self) -> bool:
        return self.epoch == self.num_epochs


def load_config(workdir: Path) -> Config:
    """The settings of the run in `workdir`.

    Raises:
      RecordsError: there is no run, or its record is damaged or of another version.
    """
    stored = read_config(workdir)
    if stored is None:
        raise records.RecordsError(
            f"--workdir={workdir} holds no run: give the folder that a training run "
            "was given or printed"
        )
    return stored[0]


def load_classifier(workdir: Path, precision: str | None = None) -> Classifier:
    """The classifier of the run's last checkpoint: logits of light strokes on black.

    Args:
      workdir: the run's folder.
      precision: of matmuls, as the setting; None for the run's own.

    Raises:
      RecordsError, CheckpointError: there is no run that can be read.
    """
    config = load_config(workdir)
    source = data.DATASETS[config.dataset]
    computed = dataclasses.replace(config, precision=precision or config.precision)
    model = build_model(computed, source.image_shape, len(source.class_names))
    shapes = train_step.init_params_shapes(model, source.image_shape)
    template = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    with Checkpoints(workdir, config.identity(), read_only=True) as checkpoints:
        step, params = checkpoints.restore_params(template)
    devices = devices_lib.choose_devices(num_devices=0)
    params = placement.replicate(params, devices)
    predict_logits = programs.make_predict(train_step.make_eval_step(model), devices)
    return Classifier(step, model, params, predict_logits)


def evaluate(
    workdir: Path, data_dir: str | None = None, raw_dir: str | None = None
) -> Evaluation:
    """Scores the last checkpoint on the validation part and, at the end, the test set.

    The test set of a run that is not complete is left alone: it is scored once.

    Args:
      workdir: the run's folder; nothing is written there.
      data_dir: where the data set is prepared, if no longer where it was.
      raw_dir: its raw files, if it is not prepared any more.

    Raises:
      RecordsError, CheckpointError, DatasetError: see their messages.
    """
    config = load_config(workdir)
    classifier = load_classifier(workdir)
    dataset = data.load(config.dataset, data_dir or config.data_dir, raw_dir)
    check_workdir(config, workdir, dataset.sha256)
    train_indices, indices = data.split_validation(
        dataset.train_labels, config.validation_fraction, config.seed
    )
    epoch = classifier.step // (len(train_indices) // config.batch_size)
    parts = {}
    if len(indices):
        part = dataset.train_images[indices], dataset.train_labels[indices]
        parts["validation"] = part
    if epoch == config.epochs:
        parts["test"] = dataset.test_images, dataset.test_labels
    scores = {
        name: {
            **metrics.score(classifier.classify(images), labels),
            "num_images": len(labels),
        }
        for name, (images, labels) in parts.items()
    }
    return Evaluation(dataset.name, epoch, config.epochs, scores)


def predict(workdir: Path, images: np.ndarray) -> np.ndarray:
    """Probabilities by the run's last checkpoint.

    Args:
      workdir: the run's folder.
      images: uint8 [N, H, W, 1], light strokes on black; see `images.read_image`.

    Returns:
      float32 [N, K], rows sum to 1.
    """
    return evaluation.softmax(load_classifier(workdir).classify(images))
