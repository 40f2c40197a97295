"""Keras on TensorFlow, tuned: `keras_tuned` by `fit`, `keras_loop` by a custom loop.

`fit` takes an epoch as one execution, and computes no metrics. The custom loop is the
epoch as one tf.function over a data set in memory. Both are compiled by XLA for the
models where that is faster on CPU. The rnn is unrolled.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from experiments.speed import timing
from experiments.speed.frameworks import keras_fit, protocol

# By framework, where XLA is faster; it trains the cnn three times slower on CPU.
_XLA = {"keras_tuned": ("mlp",), "keras_loop": ("linear", "mlp", "gru")}


def build(task: protocol.Task) -> protocol.Benchmark:
    keras_fit.start(task)
    options = {"unroll": True} if task.model == "rnn" else {}
    model = keras_fit.build_model(task.model, **options)
    xla = task.model in _XLA[task.framework]
    if task.framework == "keras_loop":
        run_epoch = loop_epochs(model, task, xla)
    else:
        run_epoch = keras_fit.fit_epochs(
            model, task, steps_per_execution=task.num_steps, jit_compile=xla
        )
    return keras_fit.make_benchmark(model, task, run_epoch)


def loop_epochs(
    model: keras.Model, task: protocol.Task, xla: bool
) -> Callable[[], dict[str, Any]]:
    """A function that trains the next epoch, all steps in one compiled call."""
    images, labels = (tf.constant(x) for x in keras_fit.arrays(task))
    optimizer, loss_fn = keras_fit.make_optimizer(), keras_fit.make_loss()
    optimizer.build(model.trainable_variables)

    @tf.function(jit_compile=xla)
    def train_steps(order):
        total = tf.constant(0.0)
        for step in tf.range(task.num_steps):
            indices = tf.slice(order, [step * task.batch_size], [task.batch_size])
            with tf.GradientTape() as tape:
                logits = model(tf.gather(images, indices), training=True)
                loss = loss_fn(tf.gather(labels, indices), logits)
            grads = tape.gradient(loss, model.trainable_variables)
            optimizer.apply(grads, model.trainable_variables)
            total += loss
        return total / task.num_steps

    def train_epoch():
        return float(train_steps(tf.random.shuffle(tf.range(len(images)))))

    return timing.timed(train_epoch)


if __name__ == "__main__":
    protocol.serve(build)
