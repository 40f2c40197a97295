"""mnist_jax: one image by `jax.jit`, many by the program of its own `predict`."""

import flax
import jax
import numpy as np

from experiments.speed.frameworks import protocol
from experiments.speed.inference_parts import measurement
from mnist_jax import evaluation, train_step
from mnist_jax.config import make_config
from mnist_jax.parallel import devices as devices_lib
from mnist_jax.parallel import placement, programs
from mnist_jax.training_setup import build_model


def build(task: protocol.Task) -> protocol.Benchmark:
    devices_lib.start(task.threads)
    shape = task.images.shape[1:]
    model = build_model(make_config(task.model, "mnist"), shape, 10)
    blank = np.zeros((1, *shape), np.float32)
    params = jax.jit(model.init)(jax.random.key(0), blank)["params"]
    eval_step = train_step.make_eval_step(model)
    predict_one = jax.jit(lambda images: jax.nn.softmax(eval_step(params, images)))
    devices = devices_lib.choose_devices(0)
    replicated = placement.replicate(params, devices)

    def batched(batch_size):
        predict_logits = programs.make_predict(eval_step, devices, batch_size)
        return lambda images: evaluation.softmax(predict_logits(replicated, images))

    return measurement.benchmark(
        task,
        lambda images: np.asarray(predict_one(images)),
        {"jax": jax.__version__, "flax": flax.__version__},
        sum(leaf.size for leaf in jax.tree.leaves(params)),
        predict_many=batched(-(-measurement.LARGE_BATCH // len(devices))),
        predict_all=batched(programs.EVALUATION_BATCH),
    )


if __name__ == "__main__":
    protocol.serve(build)
