"""What our operations know of the compiler they are made for."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def on_cpu() -> bool:
    """Whether programs are built for CPU, for whose compiler our operations are made.

    The one place that decides: GPU and TPU get the plain form, which XLA hands to
    cuBLAS, cuDNN or its own kernels.
    """
    return jax.default_backend() == "cpu"


def apart(function: Callable[..., Any], *operands: Any) -> Any:
    """`function(*operands)`, compiled apart from what comes before and after.

    XLA's CPU compiler fuses a change of shape into the loop over elements before it,
    which then works out its place by divisions and is not vectorised: several times
    the time of the loop itself. It does not fuse into the branch of a condition, and
    cannot know that this one is always true; where it is not, the numbers that it
    looks at are infinite or not numbers, and so is the result.
    """
    always = jax.tree.leaves(operands)[0].ravel()[0] < jnp.inf
    shapes = jax.eval_shape(function, *operands)

    def fill(shape):
        is_float = jnp.issubdtype(shape.dtype, jnp.floating)
        return jnp.full(shape.shape, jnp.nan if is_float else 0, shape.dtype)

    def never(*operands):
        return jax.tree.map(fill, shapes)

    return jax.lax.cond(always, function, never, *operands)
