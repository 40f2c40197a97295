"""What a trained model looks at: pure functions, like its steps of training."""

import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mnist_jax.train_step import to_float

Array = jax.Array


def reads_steps(model: nn.Module) -> bool:
    """Whether the model reads an image step by step, as recurrent models do."""
    return "every_step" in inspect.signature(model.__call__).parameters


def make_reading_step(model: nn.Module) -> Callable[[Any, Array], Array]:
    """The class probabilities after each time step.

    Args:
      model: one that `reads_steps`.

    Returns:
      (params, images uint8 [b, H, W, 1]) -> float32 [b, T, K]; the last are those of
      the prediction.
    """

    def reading_step(params: Any, images: Array) -> Array:
        logits = model.apply({"params": params}, to_float(images), every_step=True)
        return jax.nn.softmax(logits).swapaxes(0, 1)

    return reading_step


def make_saliency_step(model: nn.Module) -> Callable[[Any, Array], Array]:
    """How much each pixel moves the predicted class's log-probability.

    The gradient's absolute value at the image, which Simonyan et al., "Deep Inside
    Convolutional Networks" (2014), call saliency, here of the log-probability, so that
    what speaks for another class counts, too.

    Returns:
      (params, images uint8 [b, H, W, 1]) -> float32 [b, H, W], 0 or more, per change of
      a pixel from black to white.
    """

    def saliency_step(params: Any, images: Array) -> Array:
        def best(images):  # each image has its own, so that the sum parts again
            log_probs = jax.nn.log_softmax(model.apply({"params": params}, images))
            return log_probs.max(-1).sum()

        return jnp.abs(jax.grad(best)(to_float(images))).sum(-1)

    return saliency_step
