"""A trained run put to use: its checkpoint and images in, probabilities out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from mnist_jax import batching, data, evaluation, metrics, stored_model, train_step
from mnist_jax import explain as explain_lib
from mnist_jax.parallel import devices as devices_lib
from mnist_jax.parallel import placement, programs
from mnist_jax.storage.stored_run import check_workdir, require_config


class Classifier(NamedTuple):
    """A run's last checkpoint, ready for use."""

    step: int  # that the checkpoint was taken after
    model: nn.Module
    params: Any  # on every device
    predict_logits: Callable[[Any, np.ndarray], np.ndarray]  # see programs.make_predict

    def classify(self, images: np.ndarray) -> np.ndarray:
        """uint8 [N, H, W, 1] -> logits float32 [N, K]."""
        return self.predict_logits(self.params, images)


class Explanation(NamedTuple):
    """What a model looked at in N images; see `explain.py`."""

    saliency: np.ndarray  # float32 [N, H, W]
    reading: np.ndarray | None  # float32 [N, T, K]; None of a model without time steps


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


def load_classifier(
    workdir: Path, precision: str | None = None, eval_views: int | None = None
) -> Classifier:
    """The classifier of the run's last checkpoint: logits of light strokes on black.

    Args:
      workdir: the run's folder.
      precision, eval_views: as the settings; None for the run's own.

    Raises:
      RecordsError, CheckpointError: there is no run that can be read.
      DeviceError: see `devices.choose_devices`.
    """
    stored = stored_model.load(workdir, precision=precision)
    devices = devices_lib.choose_devices(num_devices=0)
    params = placement.replicate(stored.params, devices)
    num_views = eval_views or stored.config.eval_views
    eval_step = train_step.make_eval_step(stored.model, num_views)
    predict_logits = programs.make_predict(eval_step, devices)
    return Classifier(stored.step, stored.model, params, predict_logits)


def evaluate(
    workdir: Path,
    data_dir: str | None = None,
    raw_dir: str | None = None,
    eval_views: int | None = None,
) -> Evaluation:
    """Scores the last checkpoint on the validation part and, at the end, the test set.

    The test set of a run that is not complete is left alone: it is scored once.

    Args:
      workdir: the run's folder; nothing is written there.
      data_dir: where the data set is prepared, if no longer where it was.
      raw_dir: its raw files, if it is not prepared any more.
      eval_views: as the setting; None for the run's own.

    Raises:
      RecordsError, CheckpointError, DatasetError: see their messages.
    """
    config, data_sha256, _ = require_config(workdir)
    classifier = load_classifier(workdir, eval_views=eval_views)
    dataset = data.load(
        config.dataset,
        data_dir or config.data_dir,
        raw_dir,
        config.preprocess,
        data_sha256,
    )
    check_workdir(config, workdir, dataset.sha256)
    train_indices, indices = batching.split(dataset.train_labels, config)
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


def explain(workdir: Path, images: np.ndarray) -> Explanation:
    """What the run's last checkpoint looks at: uint8 images [N, H, W, 1]."""
    stored = stored_model.load(workdir)
    devices = devices_lib.choose_devices(num_devices=1)
    params = placement.replicate(stored.params, devices)

    def compute(step):
        return programs.make_predict(step, devices, len(images))(params, images)

    saliency = compute(explain_lib.make_saliency_step(stored.model))
    if not explain_lib.reads_steps(stored.model):
        return Explanation(saliency, None)
    return Explanation(saliency, compute(explain_lib.make_reading_step(stored.model)))
