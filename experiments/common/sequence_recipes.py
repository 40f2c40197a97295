"""What is trained on an image's pixels one by one, with about as many parameters."""

import functools
from typing import Any

import jax

from mnist_jax import train_step, training_setup
from mnist_jax.config import Config, make_config
from mnist_jax.presets import ELASTIC, NOT_ELASTIC

NUM_PARAMS = 70_000  # at most

_LINEAR = dict(layers=3, pool=4, readout="mean", learning_rate=4e-3)
_GATED = dict(layers=1, learning_rate=2e-3)
MODELS: dict[str, dict[str, Any]] = {
    "lru": dict(_LINEAR, min_decay=0.9),
    "mingru": _LINEAR,
    "minlstm": _LINEAR,
    "gru": _GATED,
    "lstm": _GATED,
    "rnn": dict(_GATED, learning_rate=5e-4),
}
# By which these train faster on the pixels; lstm and gru do on some processors, and
# are slower on others: docs/sequences.md.
_REMAT_STEPS = dict.fromkeys(("lru", "mingru", "minlstm"), 28)
# The same for all models.
AUGMENTS: dict[str, dict[str, Any]] = {
    "none": dict(NOT_ELASTIC, augment="none"),
    "elastic": ELASTIC,
}
SEQUENCES = ("pixels", "permuted")


def make(
    model: str, dataset: str, sequence: str, augment: str, **settings: Any
) -> Config:
    """The config of one run.

    Args:
      model: in `MODELS`.
      dataset: whose images have 28 x 28 pixels.
      sequence: of `SEQUENCES`.
      augment: in `AUGMENTS`.
      **settings: of the run.
    """
    own = dict(MODELS[model])
    if model in _REMAT_STEPS:
        own["remat_steps"] = _REMAT_STEPS[model]
    if sequence == "permuted" and "readout" in own:
        # Neighbours in a random order are no neighbours in the image, so that a mean
        # over time loses more than the last state: docs/selection.md.
        own["readout"] = "last"
    return make_config(
        model,
        dataset,
        **dict(
            own,
            units=matched_units(model),
            sequence=sequence,
            batch_size=128,
            schedule="onecycle",
            clip_norm=1.0,
            **AUGMENTS[augment],
        )
        | settings,
    )


@functools.cache
def matched_units(model: str) -> int:
    """The most units with which the model has no more than `NUM_PARAMS` parameters."""
    low, high = 1, 1_000
    while high - low > 1:
        middle = (low + high) // 2
        if count_params(model, middle) <= NUM_PARAMS:
            low = middle
        else:
            high = middle
    return low


def count_params(model: str, units: int) -> int:
    config = make_config(
        model, "mnist", **MODELS[model] | dict(units=units, sequence="pixels")
    )
    shape = (28, 28, 1)
    module = training_setup.build_model(config, shape, 10)
    params = train_step.init_params_shapes(module, shape)
    return sum(leaf.size for leaf in jax.tree.leaves(params))
