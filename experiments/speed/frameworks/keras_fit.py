"""Keras on TensorFlow: `compile` and `fit`, with layers at their defaults."""

import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments.speed.frameworks import families, protocol

_RECURRENT = {
    "rnn": keras.layers.SimpleRNN,
    "lstm": keras.layers.LSTM,
    "gru": keras.layers.GRU,
}


class Clock(keras.callbacks.Callback):
    """Times the epoch inside `fit`.

    So the time leaves out that each call of `fit` copies all images to TensorFlow once:
    the other frameworks hold theirs ready, too. It includes shuffling.
    """

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds = time.perf_counter() - self._began


def build(task: protocol.Task) -> protocol.Benchmark:
    start(task)
    model = build_model(task.model)
    run_epoch = fit_epochs(model, task, metrics=["accuracy"])
    return make_benchmark(model, task, run_epoch)


def start(task: protocol.Task) -> None:
    """Sets TensorFlow's threads and all seeds."""
    tf.config.threading.set_intra_op_parallelism_threads(task.threads)
    tf.config.threading.set_inter_op_parallelism_threads(task.threads)
    keras.utils.set_random_seed(0)


def make_optimizer() -> keras.Optimizer:
    # Keras' own epsilon is 1e-7.
    return keras.optimizers.Adam(families.LEARNING_RATE, epsilon=1e-8)


def make_loss() -> keras.Loss:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def arrays(task: protocol.Task) -> tuple[np.ndarray, np.ndarray]:
    """float32 [N, 28, 28], for the cnn [N, 28, 28, 1]; int32 [N].

    Whole batches only, for `fit` would train on the incomplete one too.
    """
    num_images = task.num_steps * task.batch_size
    images = protocol.to_float(task.images[:num_images])
    if task.model != "cnn":
        images = images[..., 0]
    return images, task.labels[:num_images]


def fit_epochs(
    model: keras.Model, task: protocol.Task, **compile_options: Any
) -> Callable[[], dict[str, Any]]:
    """A function that trains the next epoch by `fit`; options are of `compile`."""
    model.compile(optimizer=make_optimizer(), loss=make_loss(), **compile_options)
    images, labels = arrays(task)

    def run_epoch():
        clock = Clock()
        history = model.fit(
            images,
            labels,
            batch_size=task.batch_size,
            epochs=1,
            shuffle=True,
            verbose=0,
            callbacks=[clock],
        )
        return {"seconds": clock.seconds, "loss": history.history["loss"][0]}

    return run_epoch


def make_benchmark(
    model: keras.Model, task: protocol.Task, run_epoch: Callable[[], dict[str, Any]]
) -> protocol.Benchmark:
    return protocol.Benchmark(
        run_epoch=run_epoch,
        num_params=model.count_params(),
        redundant_params=2 * families.UNITS if task.model == "gru" else 0,
        versions={"keras": keras.__version__, "tensorflow": tf.__version__},
    )


def build_model(name: str, **recurrent_options: Any) -> keras.Sequential:
    """Images as `arrays` gives them, in batches -> logits [B, 10].

    Of the two biases of Keras' GRU, that of the update and reset gates is redundant,
    as in PyTorch's.
    """
    layers = keras.layers
    if name == "cnn":
        body = [
            layers.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
        ]
    elif name in _RECURRENT:
        recurrence = _RECURRENT[name](families.UNITS, **recurrent_options)
        body = [layers.Input((28, 28)), recurrence]
    else:
        body = [layers.Input((28, 28)), layers.Flatten()]
        if name == "mlp":
            body.append(layers.Dense(families.HIDDEN, activation="relu"))
    return keras.Sequential([*body, layers.Dense(families.NUM_CLASSES)])


if __name__ == "__main__":
    protocol.serve(build)
