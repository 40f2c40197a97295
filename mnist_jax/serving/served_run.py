"""A trained run that predicts at once: all its programs are compiled before."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mnist_jax import evaluation, explain, images, stored_model, train_step
from mnist_jax.parallel import devices as devices_lib
from mnist_jax.parallel import placement, programs
from mnist_jax.storage import records


class ServedRun:
    """The last checkpoint of a run, on one device.

    Attributes:
      name: the workdir's.
      config: the run's settings.
      class_names: K.
      image_shape: (H, W, 1).
      reader: of a person's image files, as the run's images were read.
      test_accuracy: None of a run that is not complete.
    """

    def __init__(self, workdir: Path):
        """Raises RecordsError or CheckpointError where there is no run to be read, and
        DeviceError as `devices.choose_devices` does."""
        stored = stored_model.load(workdir)
        result = records.read_result(workdir)
        self.name = os.path.basename(os.path.realpath(workdir))
        self.config = stored.config
        self.class_names = stored.facts.class_names
        self.image_shape = stored.facts.image_shape
        self.reader = images.READERS[self.config.preprocess]
        self.test_accuracy = result and result["test_accuracy"]
        self._devices = devices_lib.choose_devices(num_devices=1)
        self._params = placement.replicate(stored.params, self._devices)
        model = stored.model
        eval_step = train_step.make_eval_step(model, self.config.eval_views)
        self._logits_of_one = self._compile(eval_step, 1)
        self._logits = self._compile(eval_step, programs.EVALUATION_BATCH)
        self._saliency = self._compile(explain.make_saliency_step(model), 1)
        self._reading = None
        if explain.reads_steps(model):
            self._reading = self._compile(explain.make_reading_step(model), 1)

    def describe(self) -> dict[str, Any]:
        """What the page says of it, as JSON."""
        return {
            "name": self.name,
            "model": self.config.model,
            "dataset": self.config.dataset,
            "class_names": list(self.class_names),
            "test_accuracy": self.test_accuracy,
            "reads": getattr(self.config, "sequence", None) if self._reading else None,
        }

    def predict(self, images: np.ndarray) -> np.ndarray:
        """uint8 [N, H, W, 1] -> probabilities, float32 [N, K]."""
        logits = self._logits_of_one if len(images) == 1 else self._logits
        return evaluation.softmax(logits(images))

    def saliency(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 1] -> float32 [H, W], see `explain.make_saliency_step`."""
        return self._saliency(image[None])[0]

    def reading(self, image: np.ndarray) -> np.ndarray | None:
        """uint8 [H, W, 1] -> probabilities after each time step, float32 [T, K].

        None of a model that reads no steps.
        """
        return self._reading and self._reading(image[None])[0]

    def _compile(self, step: Callable, batch_size: int) -> Callable:
        """`step` for any number of images, so many at a time."""
        run = programs.make_predict(step, self._devices, batch_size)
        run(self._params, np.zeros((1, *self.image_shape), np.uint8))
        return lambda images: run(self._params, images)
