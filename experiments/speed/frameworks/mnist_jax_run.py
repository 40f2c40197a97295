"""mnist_jax, by the driver that its own training uses."""

import flax
import jax
import optax

from experiments.speed import plain_runs
from experiments.speed.frameworks import families, protocol
from mnist_jax.parallel import devices


def build(task: protocol.Task) -> protocol.Benchmark:
    devices.start(task.threads)
    units = families.HIDDEN if task.model == "mlp" else families.UNITS
    config = plain_runs.make_plain_config(task.model, task.batch_size, units)
    trainer = plain_runs.make_plain_trainer(config, task.images, task.labels)
    trainer.compile()
    return protocol.Benchmark(
        run_epoch=plain_runs.make_epochs(trainer),
        num_params=sum(x.size for x in jax.tree.leaves(trainer.state.params)),
        versions={
            "jax": jax.__version__,
            "flax": flax.__version__,
            "optax": optax.__version__,
        },
    )


if __name__ == "__main__":
    protocol.serve(build)
