"""A trained run put to use: its checkpoint and images in, probabilities out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mnist_jax import datasets, metrics, models, parallel, records, step
from mnist_jax.checkpoints import Checkpoints
from mnist_jax.config import Config


def load_config(workdir: Path) -> Config:
    """The settings of the run in `workdir`.

    Raises:
      RecordsError: there is no run, or its record is damaged or of another version.
      DatasetError: the run's data set is none that there is.
    """
    config = records.read_config(workdir, _make_config)
    if config is None:
        raise records.RecordsError(
            f"--workdir={workdir} holds no run: give the folder that a training run "
            "was given or printed"
        )
    return config


def _make_config(settings: dict[str, Any]) -> Config:
    config = Config.from_dict(settings)
    # These know more about what there is and fits together.
    datasets.class_names(config.dataset)
    models.build_model(config)
    return config


def load_classifier(workdir: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The classifier of the run's last checkpoint.

    Returns:
      images uint8 [N, 28, 28, 1], light strokes on black -> logits float32 [N, 10].

    Raises:
      RecordsError, ConfigError, CheckpointError: there is no run that can be read.
    """
    model = models.build_model(load_config(workdir))
    images = jnp.zeros((1, 28, 28, 1))
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    template = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    with Checkpoints(workdir, read_only=True) as checkpoints:
        params = checkpoints.restore_params(template)
    devices = parallel.choose_devices(num_devices=0)
    params = parallel.replicate(params, devices)
    classify = parallel.make_predict(step.make_eval_step(model), devices)
    return lambda images: classify(params, images)


def evaluate(
    workdir: Path, data_dir: str | None = None, raw_dir: str | None = None
) -> dict[str, Any]:
    """Scores the last checkpoint on its data set's validation part and test set.

    Args:
      workdir: the run's folder; nothing is written there.
      data_dir: where the data set is prepared, if no longer where it was.
      raw_dir: its raw files, if it is not prepared any more.

    Returns:
      'dataset', and 'loss', 'accuracy' and 'num_images' of each 'test' and
      'validation'; the latter is left out where the run has no validation part.

    Raises:
      RecordsError, ConfigError, CheckpointError, DatasetError: see their messages.
    """
    config = load_config(workdir)
    classify = load_classifier(workdir)
    dataset = datasets.load(config.dataset, data_dir or config.data_dir, raw_dir)
    _, rows = datasets.split_validation(
        dataset.train_labels, config.validation_fraction, config.seed
    )
    parts = {"test": (dataset.test_images, dataset.test_labels)}
    if len(rows):
        parts["validation"] = (dataset.train_images[rows], dataset.train_labels[rows])
    scores: dict[str, Any] = {"dataset": dataset.name}
    for name, (images, labels) in parts.items():
        loss, accuracy = metrics.score(classify(images), labels)
        scores[name] = {"loss": loss, "accuracy": accuracy, "num_images": len(labels)}
    return scores


def predict(workdir: Path, images: np.ndarray) -> np.ndarray:
    """Probabilities by the run's last checkpoint.

    Args:
      workdir: the run's folder.
      images: uint8 [N, 28, 28, 1], light strokes on black; see `images.read_image`.

    Returns:
      float32 [N, 10], rows sum to 1.
    """
    return metrics.softmax(load_classifier(workdir)(images))
