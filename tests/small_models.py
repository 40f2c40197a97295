"""Models as tests make and apply them: compiled as a whole, without optimizations."""

import jax
import numpy as np

SHAPE, K = (28, 28, 1), 10
IMAGES = np.random.default_rng(0).uniform(size=(4, 28, 28, 1)).astype(np.float32)


def init(model):
    # Compiled as a whole: one by one its operations take seconds.
    options = {"xla_backend_optimization_level": 0}
    init = jax.jit(model.init, compiler_options=options)
    return init(jax.random.key(0), IMAGES)["params"]


def apply(model, params, *inputs):
    """Compiled as a whole, too."""
    options = {"xla_backend_optimization_level": 0}
    return jax.jit(model.apply, compiler_options=options)({"params": params}, *inputs)


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def as_flax_dense(params):
    return {**params, "kernel": params["kernel"].T}
