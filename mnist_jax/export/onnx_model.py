"""A program as an ONNX model, node by node from the equations of its jaxpr.

What an equation makes of constants alone is computed here and becomes a constant. A
broadcast is left to the operation that takes it, as ONNX broadcasts by itself.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from jax.extend.core import Literal
from onnx import helper

import mnist_jax
from mnist_jax import extras
from mnist_jax.export.errors import ExportError
from mnist_jax.export.onnx_graph import Graph, Value
from mnist_jax.export.onnx_ops import OPS
from mnist_jax.export.program import STAND_IN, Program, scan_counts

OPSET = 18
IR_VERSION = 8  # of ONNX 1.13, the first with opset 18


def to_onnx(program: Program, metadata: Mapping[str, str]) -> bytes:
    """A model of uint8 'images' [b, H, W, 1] that gives float32 'logits' [b, K].

    Args:
      program: of the model.
      metadata: what the file says of itself.

    Raises:
      ExportError: an equation has no counterpart here.
    """
    graph = Graph(program.params, batch_of="images")
    jaxpr = program.jaxpr
    args = [*program.params.values(), "images"]
    [logits] = _convert(graph, jaxpr.jaxpr, jaxpr.consts, args)
    last = helper.make_node("Identity", [graph.name(logits)], ["logits"], name="last")
    graph.nodes.append(last)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "classifier",
            [_describe("images", jaxpr.jaxpr.invars[-1])],
            [_describe("logits", jaxpr.jaxpr.outvars[0])],
            [onnx.numpy_helper.from_array(a, n) for n, a in graph.constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="mnist_jax",
        producer_version=mnist_jax.__version__,
    )
    helper.set_model_props(model, dict(metadata))
    return model.SerializeToString()


def _convert(
    graph: Graph, jaxpr: Any, consts: Sequence[Any], args: Sequence[Value]
) -> list[Value]:
    """Adds the nodes of a jaxpr; returns its outputs."""
    emitters = {**OPS, "scan": _scan}
    values = dict(zip(jaxpr.constvars, map(np.asarray, consts), strict=True))
    values |= zip(jaxpr.invars, args, strict=True)

    def read(atom):
        if isinstance(atom, Literal):
            return np.asarray(atom.val, atom.aval.dtype)
        return values[atom]

    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        name = equation.primitive.name
        if _is_constant(equation, operands):
            outputs = _compute(equation, operands)
        elif name in emitters:
            outputs = emitters[name](graph, equation, operands)
        else:
            raise ExportError(
                f"model.onnx: the model uses {name!r} of JAX, which has no counterpart "
                "in mnist_jax/export/onnx_ops.py: add it there, or use model.stablehlo"
            )
        outputs = outputs if isinstance(outputs, list) else [outputs]
        values |= zip(equation.outvars, outputs, strict=True)
    return [read(atom) for atom in jaxpr.outvars]


def _is_constant(equation: Any, operands: Sequence[Value]) -> bool:
    sizes = itertools.chain(*(out.aval.shape for out in equation.outvars))
    return all(isinstance(x, np.ndarray) for x in operands) and not any(
        size and size % STAND_IN == 0 for size in sizes
    )


def _compute(equation: Any, operands: Sequence[np.ndarray]) -> list[np.ndarray]:
    outputs = equation.primitive.bind(*operands, **equation.params)
    if not equation.primitive.multiple_results:
        outputs = [outputs]
    return [np.asarray(output) for output in outputs]


def _scan(graph: Graph, equation: Any, operands: Sequence[Value]) -> list[str]:
    """An ONNX Scan, whose body reads what does not change from the graph around it."""
    closed = equation.params["jaxpr"]
    num_consts, num_carry = scan_counts(equation)
    consts = [
        x if isinstance(x, np.ndarray) else graph.name(x) for x in operands[:num_consts]
    ]
    variables = closed.jaxpr.invars[num_consts:]
    num_scanned = len(variables) - num_carry
    if not num_scanned:
        raise ExportError("model.onnx: a scan over nothing has no counterpart in ONNX")
    body = graph.body()
    inputs = [body.new_name("step") for _ in variables]
    outputs = _convert(body, closed.jaxpr, closed.consts, [*consts, *inputs])
    # Each by a node of the body, as an output of it must be.
    outputs = [body.emit("Identity", value) for value in outputs]
    # An attribute that is an empty list is none.
    directions = {
        name: [1] * count
        for name, count in {
            "scan_input_directions": num_scanned,
            "scan_output_directions": len(outputs) - num_carry,
        }.items()
        if equation.params["reverse"] and count
    }
    made = graph.emit(
        "Scan",
        *operands[num_consts:],
        num=len(outputs),
        body=helper.make_graph(
            body.nodes,
            body.new_name("body"),
            list(map(_describe, inputs, variables)),
            list(map(_describe, outputs, closed.jaxpr.outvars)),
        ),
        num_scan_inputs=num_scanned,
        **directions,
    )
    return made if isinstance(made, list) else [made]


def _describe(name: str, variable: Any) -> onnx.ValueInfoProto:
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(variable.aval.dtype))
    shape = [
        "b" if size == STAND_IN else None if size and size % STAND_IN == 0 else size
        for size in variable.aval.shape
    ]
    return helper.make_tensor_value_info(name, dtype, shape)


def load(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """uint8 [b, H, W, 1] -> float32 [b, K], by ONNX Runtime where it is installed."""
    if extras.is_installed("onnxruntime"):
        import onnxruntime

        session = onnxruntime.InferenceSession(
            path.read_bytes(), providers=["CPUExecutionProvider"]
        )
    else:
        from onnx import reference

        session = reference.ReferenceEvaluator(onnx.load(path))
    return lambda images: session.run(None, {"images": images})[0]
