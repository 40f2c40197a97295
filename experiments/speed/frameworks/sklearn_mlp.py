"""scikit-learn's MLPClassifier, for the mlp and, without a hidden layer, for linear.

The same network, loss, batch and Adam, in float32 and without regularization. A call
of `partial_fit` trains one epoch in a new order and keeps Adam's moments, which `fit`
would not. It checks its input in each call, and makes one-hot labels.
"""

import numpy as np
import sklearn
from sklearn.neural_network import MLPClassifier

from experiments.speed import timing
from experiments.speed.frameworks import families, protocol


def build(task: protocol.Task) -> protocol.Benchmark:
    # `partial_fit` would train on the incomplete batch too.
    num_images = task.num_steps * task.batch_size
    images = protocol.to_float(task.images[:num_images]).reshape(num_images, -1)
    labels = task.labels[:num_images]
    model = MLPClassifier(
        hidden_layer_sizes=(families.HIDDEN,) if task.model == "mlp" else (),
        solver="adam",
        learning_rate_init=families.LEARNING_RATE,
        batch_size=task.batch_size,
        alpha=0.0,
        random_state=0,
    )
    model.partial_fit(images, labels, classes=np.arange(families.NUM_CLASSES))

    def train_epoch():
        model.partial_fit(images, labels)
        return float(model.loss_)

    return protocol.Benchmark(
        run_epoch=timing.timed(train_epoch),
        num_params=sum(x.size for x in [*model.coefs_, *model.intercepts_]),
        versions={"scikit-learn": sklearn.__version__},
    )


if __name__ == "__main__":
    protocol.serve(build)
