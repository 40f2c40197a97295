"""A model's program for every platform, read off its jaxpr.

Two things in a traced model belong to where and on what it was traced. What was written
for CPUs stands beside XLA's own operations, and of `platform_dependent` the default
branch is taken. And sizes of arrays are numbers. JAX's symbolic sizes would leave them
open, but with them it traces `x[:2]` as a gather, which is slow and has no simple
counterpart in ONNX. So the batch size of the trace is a prime, `STAND_IN`: what is a
multiple of it is the same multiple of any other batch size.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.extend.core import ClosedJaxpr, Literal
from jax.interpreters.partial_eval import dce_jaxpr

from mnist_jax import train_step
from mnist_jax.export.errors import ExportError
from mnist_jax.ops.platform import default_branch

STAND_IN = 65_537  # above the sizes of settings, and below 2^31 with an image's values
PLATFORMS = ("cpu", "cuda", "tpu")

_CALLS = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call")
_CALLS += ("remat2", "checkpoint")  # the same, of two versions of JAX


class Program(NamedTuple):
    """(*params, uint8 images [STAND_IN, H, W, 1]) -> logits float32 [STAND_IN, K]."""

    jaxpr: ClosedJaxpr  # without calls and without equations that nothing needs
    params: dict[str, np.ndarray]  # by name, as in 'Dense_0/kernel'
    image_shape: tuple[int, ...]


def trace(
    model: nn.Module, params: Any, image_shape: Sequence[int], num_views: int = 1
) -> Program:
    """The program of a model, whose matmuls are in full float32 on all platforms.

    Args:
      model: for float32.
      params: of the model, arrays.
      image_shape: (H, W, 1).
      num_views: that are averaged, see `train_step.make_eval_step`.

    Raises:
      ExportError: the model branches or loops by what it finds.
    """
    named = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree.leaves_with_path(params)
    }
    images = jax.ShapeDtypeStruct((STAND_IN, *image_shape), jnp.uint8)
    # By default matmuls are of fewer bits on GPU and TPU, and logits differ by 1e-3.
    with jax.default_matmul_precision("highest"):
        eval_step = train_step.make_eval_step(model, num_views)
        traced = jax.make_jaxpr(eval_step)(params, images)
    neutral = jax.make_jaxpr(
        lambda *args: _evaluate(traced.jaxpr, traced.consts, args, lambda size: size)
    )(*named.values(), images)
    needed, _ = dce_jaxpr(neutral.jaxpr, [True], instantiate=True)
    return Program(ClosedJaxpr(needed, neutral.consts), named, tuple(image_shape))


def to_stablehlo(program: Program) -> bytes:
    """Serialized by `jax.export`: uint8 [b, H, W, 1] -> float32 [b, K], for any b."""
    (b,) = export.symbolic_shape("b")

    def resize(size):
        return size if size % STAND_IN else size // STAND_IN * b

    def classify(images):
        args = [*program.params.values(), images]
        [logits] = _evaluate(program.jaxpr.jaxpr, program.jaxpr.consts, args, resize)
        return logits

    images = jax.ShapeDtypeStruct((b, *program.image_shape), jnp.uint8)
    with _without_locations():
        exported = export.export(jax.jit(classify), platforms=PLATFORMS)(images)
        return bytes(exported.serialize())


@contextlib.contextmanager
def _without_locations() -> Iterator[None]:
    """Keeps JAX from writing into a program which lines of which files it is from."""
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)


def _evaluate(
    jaxpr: Any,
    consts: Sequence[Any],
    args: Sequence[Any],
    resize: Callable[[int], Any],
) -> list[Any]:
    """What a jaxpr computes, with default branches for all platforms, without calls.

    Args:
      jaxpr, consts, args: as of `jax.core.eval_jaxpr`.
      resize: sizes in the parameters of equations -> sizes to compute with.
    """
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(atom):
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        outputs = _apply(equation, operands, resize)
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _apply(equation: Any, operands: list[Any], resize: Callable) -> Sequence[Any]:
    primitive, params = equation.primitive, equation.params
    if primitive.name == "cond" and params.get("branches_platforms"):
        branch, operands = default_branch(params), operands[1:]
        return _evaluate(branch.jaxpr, branch.consts, operands, resize)
    if primitive.name in _CALLS:
        called = params["jaxpr"] if "jaxpr" in params else params["call_jaxpr"]
        consts = getattr(called, "consts", ())  # that of remat is not closed
        called = getattr(called, "jaxpr", called)
        return _evaluate(called, consts, operands, resize)
    if primitive.name == "scan":
        return _scan(equation, operands, resize)
    if primitive.name in ("cond", "while"):
        raise ExportError(
            f"the model has a {primitive.name!r}, and only programs without branches "
            "and open loops can be exported: use jax.lax.scan or jnp.where"
        )
    params = {name: _resized(value, resize) for name, value in params.items()}
    outputs = primitive.bind(*operands, **params)
    return outputs if primitive.multiple_results else [outputs]


def _scan(equation: Any, operands: list[Any], resize: Callable) -> list[Any]:
    body = equation.params["jaxpr"]
    num_consts, num_carry = scan_counts(equation)
    consts, loop = operands[:num_consts], operands[num_consts:]

    def step(carry, xs):
        args = [*consts, *carry, *xs]
        outputs = _evaluate(body.jaxpr, body.consts, args, resize)
        return outputs[:num_carry], outputs[num_carry:]

    carry, outputs = jax.lax.scan(
        step,
        loop[:num_carry],
        loop[num_carry:],
        length=equation.params["length"],
        reverse=equation.params["reverse"],
    )
    return [*carry, *outputs]


def scan_counts(equation: Any) -> tuple[int, int]:
    """How many operands of a scan its body reads in each step, and how many it carries.

    Told by ranks, as JAX's versions name these counts differently: what is scanned
    over, or stacked up, has an axis of time outside of the body.
    """
    body = equation.params["jaxpr"].jaxpr

    def count_alike(outside, inside):
        pairs = zip(outside, inside, strict=True)
        return sum(one.aval.ndim == other.aval.ndim for one, other in pairs)

    num_carry = count_alike(equation.outvars, body.outvars)
    return count_alike(equation.invars, body.invars) - num_carry, num_carry


def _resized(value: Any, resize: Callable) -> Any:
    """`resize` of a whole number above 0, and of those in tuples."""
    if type(value) is tuple:
        return tuple(_resized(item, resize) for item in value)
    return resize(value) if type(value) is int and value > 0 else value
