"""Knowledge distillation (Hinton et al., "Distilling the Knowledge in a Neural
Network", 2015): beside the labels a model learns what others say of the same images."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from mnist_jax import metrics

Array = jax.Array


class Teacher(NamedTuple):
    """The models that a student learns from; it is their mean that counts."""

    models: tuple[nn.Module, ...]
    params: tuple[Any, ...]  # of each, arrays


def make_loss(
    teacher: Teacher, temperature: float
) -> Callable[[Array], Callable[[Array], Array]]:
    """images -> (a student's logits -> `loss`); the teacher runs once per images."""

    def of_images(images):
        targets = soft_targets(teacher, images, temperature)
        return lambda logits: loss(logits, targets, temperature)

    return of_images


def soft_targets(teacher: Teacher, images: Array, temperature: float) -> Array:
    """The teacher's probabilities: float32 [b, H, W, 1] -> [b, K].

    The images are those that the student sees, after augmentation (Beyer et al.,
    "Knowledge Distillation: A Good Teacher is Patient and Consistent", 2022).
    """
    members = zip(teacher.models, teacher.params, strict=True)
    logits = [model.apply({"params": params}, images) for model, params in members]
    probabilities = [jax.nn.softmax(x / temperature) for x in logits]
    return jax.lax.stop_gradient(sum(probabilities) / len(probabilities))


def loss(logits: Array, targets: Array, temperature: float) -> Array:
    """Mean cross-entropy against soft targets, times the temperature's square.

    So its gradient is as large at any temperature.

    Args:
      logits: float32 [b, K], of the student.
      targets: float32 [b, K], see `soft_targets`.
      temperature: that the logits are divided by.

    Returns:
      float32 [].
    """
    each = metrics.one_hot_cross_entropy(logits / temperature, targets)
    return temperature**2 * each.mean()
