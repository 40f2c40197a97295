"""How much arithmetic a function asks for, read off its jaxpr without running it."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mnist_jax.ops.platform import default_branch


class Work(NamedTuple):
    """What a model asks of a device."""

    macs: int  # multiply-accumulates for one image, forward
    num_params: int


def of_model(model: nn.Module, params: Any, image_shape: Sequence[int]) -> Work:
    """The work of a model that takes images [b, *image_shape], with these params."""
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    count = count_macs(
        lambda params, image: model.apply({"params": params}, image), params, image
    )
    return Work(count, sum(leaf.size for leaf in jax.tree.leaves(params)))


def count_macs(function: Callable[..., Any], *shapes: Any) -> int:
    """Multiply-accumulates in the matmuls and convolutions of `function`.

    Args:
      function: of arrays; traced, not run.
      *shapes: its arguments, arrays or `jax.ShapeDtypeStruct`s, or trees of them.

    Returns:
      The count; the body of a scan counts as often as it runs, that of a loop without
      a known end once. Of what depends on the platform the default branch counts,
      XLA's own matmuls and convolutions, so that a model's count is the same on all;
      of another condition all branches.
    """
    return _count(jax.make_jaxpr(function)(*shapes).jaxpr)


def _count(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        size = math.prod(equation.outvars[0].aval.shape)
        if name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += size * math.prod(shape[axis] for axis in contracted)
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            out_axis = params["dimension_numbers"].rhs_spec[0]
            total += size * math.prod(kernel) // kernel[out_axis]
        elif name == "cond" and params.get("branches_platforms"):
            total += _count(default_branch(params).jaxpr)
        else:
            inner = sum(_count(sub) for sub in _inner_jaxprs(params))
            total += inner * (params["length"] if name == "scan" else 1)
    return total


def _inner_jaxprs(params: dict[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            item = getattr(item, "jaxpr", item)  # of a jaxpr with its constants
            if hasattr(item, "eqns"):
                yield item
