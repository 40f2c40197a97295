"""What our operations know of XLA's CPU compiler."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp


def fusion_barrier(function: Callable[..., Any], *operands: Any) -> Any:
    """`function(*operands)`, not fused with what comes before and after.

    XLA's CPU compiler fuses a change of shape into the elementwise loop before it,
    which then computes its index by divisions and is not vectorised: several times
    the time of the loop itself. It does not fuse into the branch of a condition, and
    cannot know that this one is always true. It is asked of an element in the middle,
    as those at the edges may be zeros of a padding, which the compiler does know. If
    that element is NaN or inf, so is the output.

    Other compilers get the function alone: a condition would have to be read back.
    """
    return jax.lax.platform_dependent(
        *operands,
        cpu=functools.partial(_behind_condition, function),
        default=function,
    )


def _behind_condition(function: Callable[..., Any], *operands: Any) -> Any:
    first = jax.tree.leaves(operands)[0]
    always = first[tuple(n // 2 for n in first.shape)] < jnp.inf
    shapes = jax.eval_shape(function, *operands)

    def fill(shape):
        is_float = jnp.issubdtype(shape.dtype, jnp.floating)
        return jnp.full(shape.shape, jnp.nan if is_float else 0, shape.dtype)

    def never(*operands):
        return jax.tree.map(fill, shapes)

    return jax.lax.cond(always, function, never, *operands)


def default_branch(params: Mapping[str, Any]) -> Any:
    """What a `jax.lax.platform_dependent` does on platforms that it does not name.

    Args:
      params: of its equation in a jaxpr, a `cond` with `branches_platforms`.

    Returns:
      The branch: a jaxpr with its constants.
    """
    branches = zip(params["branches_platforms"], params["branches"], strict=True)
    return next(branch for platforms, branch in branches if platforms is None)
