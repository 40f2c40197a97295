"""Moving averages: of the params, and of what layers measure of a batch."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array

STATISTICS = "statistics"  # the collection where layers sow what they measure
_STATISTICS_DECAY = 0.99


def of_params(average: Any, params: Any, decay: float, step: Array) -> Any:
    """One step of an exponential moving average (Polyak and Juditsky, 1992).

    The first steps decay faster, so that the first values are soon forgotten.
    """
    share = 1 - jnp.minimum(decay, (1 + step) / (10 + step)).astype(jnp.float32)
    return jax.tree.map(lambda a, p: a + share * (p - a), average, params)


def of_statistics(
    params: Any, before: Any, statistics: Mapping[str, Any], step: Array
) -> Any:
    """One step of those params that are moving averages themselves.

    Args:
      params: of the model after the optimizer's step, which does not count for these.
      before: the params before it.
      statistics: of the batch, under the names of these params; may be empty.
      step: int32 [], steps done.
    """
    moved = {
        name: of_statistics(params[name], before[name], own, step)
        if isinstance(own, Mapping)
        else of_params(before[name], own, _STATISTICS_DECAY, step)
        for name, own in statistics.items()
    }
    return {**params, **moved}
