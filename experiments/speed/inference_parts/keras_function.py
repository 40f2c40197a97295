"""Keras on TensorFlow: the model in a `tf.function`, plain or compiled by XLA.

`model.predict` is for many images: it prepares a data set at each call.
"""

import keras
import tensorflow as tf

from experiments.speed.frameworks import families, keras_fit, protocol
from experiments.speed.inference_parts import measurement


def build_model(name: str) -> keras.Model:
    """The shape of the model's preset; the mlp's is not that of the training study."""
    layers = keras.layers
    if name != "mlp":
        return keras_fit.build_model(name)
    return keras.Sequential(
        [
            layers.Input((28, 28)),
            layers.Flatten(),
            layers.Dense(512, activation="relu"),
            layers.Dense(256, activation="relu"),
            layers.Dense(10),
        ]
    )


def build(task: protocol.Task) -> protocol.Benchmark:
    keras_fit.start(task)
    model = build_model(task.model)

    @tf.function(jit_compile=task.framework == "keras_xla")
    def classify(images):
        images = tf.cast(images, tf.float32) / 255
        return tf.nn.softmax(model(images, training=False))

    def predict(images):
        images = images if task.model == "cnn" else images[..., 0]
        return classify(tf.constant(images)).numpy()

    return measurement.benchmark(
        task,
        predict,
        {"keras": keras.__version__, "tensorflow": tf.__version__},
        model.count_params(),
        2 * families.UNITS if task.model == "gru" else 0,  # see `keras_fit.build_model`
    )


if __name__ == "__main__":
    protocol.serve(build)
