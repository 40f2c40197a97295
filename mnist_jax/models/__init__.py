"""The classifiers, as Flax linen modules, and their registry.

Each takes images float32 [B, H, W, 1] in 0 to 1 and returns logits float32
[B, num_classes]. Training passes `keys`, one PRNG key per image, which dropout draws
from; without keys nothing is dropped. Their field `dtype` is the type of the matmuls'
operands, see `ops/precision.py`.
"""

from mnist_jax.models.registry import (
    MODELS,
    default_settings,
    load_all,
    make_model,
    owned_settings,
    precisions,
)

load_all(__path__)

__all__ = [
    "MODELS",
    "default_settings",
    "make_model",
    "owned_settings",
    "precisions",
]
