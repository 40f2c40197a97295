"""mnist_jax, through its modules, as its own training loop uses them."""

import time

import flax
import jax
import numpy as np
import optax

from mnist_jax import models, optim, parallel, step
from mnist_jax.config import Config, make_config
from mnist_jax.train.loop import next_chunk
from mnist_jax.train.run import epoch_order, make_programs
from peers import families, protocol

_SETTINGS = {
    "linear": {},
    "mlp": dict(hidden_sizes=(families.HIDDEN,), dropout=0.0),
    "cnn": dict(dropout=0.0),
}
_RECURRENT = dict(
    units=families.UNITS, layers=1, bidirectional=False, dropout=0.0, sequence="rows"
)
_SEED = 0


def build(task: protocol.Task) -> protocol.Lane:
    parallel.start(task.threads)
    trainer = Trainer(task)
    return protocol.Lane(
        run_epoch=protocol.timed(trainer.train_epoch),
        num_params=sum(x.size for x in jax.tree.leaves(trainer.state.params)),
        versions={
            "jax": jax.__version__,
            "flax": flax.__version__,
            "optax": optax.__version__,
        },
    )


def plain_config(task: protocol.Task) -> Config:
    """The benchmark's settings instead of the model's preset."""
    return make_config(
        task.model,
        "mnist",
        seed=_SEED,
        batch_size=task.batch_size,
        optimizer="adam",
        learning_rate=families.LEARNING_RATE,
        schedule="constant",
        weight_decay=0.0,
        clip_norm=0.0,
        label_smoothing=0.0,
        augment="none",
        **_SETTINGS.get(task.model, _RECURRENT),
    )


class Trainer:
    """The state between epochs; the loop is that of `mnist_jax/train/loop.py`."""

    def __init__(self, task: protocol.Task):
        config = plain_config(task)
        model = models.build_model(config)
        schedule = optim.make_schedule(config.schedule, config.learning_rate, 1)
        programs = make_programs(config, model, schedule)
        self.devices, self.chunk = programs.devices, programs.chunk
        history = step.Metrics(*np.zeros((2, task.num_steps), np.float32))
        start = (programs.state, history, (task.images, task.labels, np.uint32(_SEED)))
        self.state, self.history, self.data = parallel.replicate(start, self.devices)
        self.task, self.epoch, self.chunk_steps = task, 0, 8
        # No steps: compiles, so that the first chunk tells how long a step takes.
        self._run_chunk(self._order(), 0, 0)

    def train_epoch(self) -> float:
        order, done = self._order(), 0
        while done < self.task.num_steps:
            last = min(self.task.num_steps, done + self.chunk_steps)
            began = time.perf_counter()
            metrics = self._run_chunk(order, done, last)
            seconds = time.perf_counter() - began
            self.chunk_steps = next_chunk(last - done, seconds)
            done = last
        self.epoch += 1
        return float(metrics.loss.mean())

    def _order(self) -> np.ndarray:
        rows = np.arange(len(self.task.images))
        order = epoch_order(rows, self.task.batch_size, _SEED, self.epoch)
        return parallel.split_order(order, len(self.devices))

    def _run_chunk(self, order: np.ndarray, first: int, last: int) -> step.Metrics:
        self.state, self.history = self.chunk(
            self.state, self.history, *self.data, order, first, last
        )
        return jax.device_get(self.history)  # waits for the chunk


if __name__ == "__main__":
    protocol.serve(build)
