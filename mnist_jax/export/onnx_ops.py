"""What in ONNX stands for a primitive of JAX: functions that add the nodes of one
equation to a graph, by the primitive's name."""

import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from mnist_jax.export.errors import ExportError
from mnist_jax.export.onnx_graph import Broadcast, Graph, Value


def _elementwise(op: str, order: Sequence[int] | None = None) -> Callable:
    """Of operands in this order, where it is not that of JAX."""

    def emit(graph: Graph, equation: Any, operands: Sequence[Value]) -> str:
        shape = equation.outvars[0].aval.shape
        is_whole = [
            not isinstance(value, Broadcast) and atom.aval.shape == shape
            for value, atom in zip(operands, equation.invars, strict=True)
        ]
        if any(is_whole):  # then ONNX repeats the others
            operands = [x.value if isinstance(x, Broadcast) else x for x in operands]
        return graph.emit(op, *(operands[i] for i in order or range(len(operands))))

    return emit


def _broadcast(graph, equation, operands):
    """Only brings the axes to where they belong; see `Broadcast`."""
    shape, axes = (equation.params[name] for name in ("shape", "broadcast_dimensions"))
    value = operands[0]
    if sizes := equation.invars[0].aval.shape:
        unrepeated = [1] * len(shape)
        for axis, size in zip(axes, sizes, strict=True):
            unrepeated[axis] = size
        value = graph.reshape(value, unrepeated)
        if tuple(unrepeated) == shape:
            return value
    return Broadcast(value, shape)


def _reshape(graph, equation, operands):
    return graph.reshape(operands[0], equation.outvars[0].aval.shape)


def _transpose(graph, equation, operands):
    return graph.transpose(operands[0], equation.params["permutation"])


def _convert_type(graph, equation, operands):
    dtype = np.dtype(equation.params["new_dtype"])
    return graph.emit("Cast", *operands, to=helper.np_dtype_to_tensor_dtype(dtype))


def _integer_pow(graph, equation, operands):
    dtype = equation.outvars[0].aval.dtype
    return graph.emit("Pow", *operands, np.array(equation.params["y"], dtype))


def _square(graph, equation, operands):
    return graph.emit("Mul", *operands, *operands)


def _not_equal(graph, equation, operands):
    return graph.emit("Not", _elementwise("Equal")(graph, equation, operands))


def _rsqrt(graph, equation, operands):
    return graph.emit("Reciprocal", graph.emit("Sqrt", *operands))


def _reduction(op: str) -> Callable:
    def emit(graph, equation, operands):
        axes = np.array(equation.params["axes"], np.int64)
        return graph.emit(op, *operands, axes, keepdims=0)

    return emit


def _concatenate(graph, equation, operands):
    pairs = zip(operands, equation.invars, strict=True)
    parts = [value for value, atom in pairs if 0 not in atom.aval.shape]
    return graph.emit("Concat", *parts, axis=equation.params["dimension"])


def _stack(graph, equation, operands):
    axis, shape = equation.params["axis"], equation.invars[0].aval.shape
    parts = [graph.reshape(x, [*shape[:axis], 1, *shape[axis:]]) for x in operands]
    return graph.emit("Concat", *parts, axis=axis)


def _split(graph, equation, operands):
    sizes = np.array(equation.params["sizes"], np.int64)
    axis = equation.params["axis"]
    return graph.emit("Split", *operands, sizes, num=len(sizes), axis=axis)


def _pad(graph, equation, operands):
    low, high, interior = zip(*equation.params["padding_config"], strict=True)
    x, filling = operands
    shape = list(equation.invars[0].aval.shape)
    for axis, between in enumerate(interior):
        if between:
            x = _pad_between(graph, x, shape, axis, between, filling)
            shape[axis] += (shape[axis] - 1) * between
    return graph.emit("Pad", x, np.array([*low, *high], np.int64), filling)


def _pad_between(graph, x, shape, axis, between, filling):
    """Pads each element on an axis of its own, and cuts off what follows the last."""
    rank, size = len(shape), shape[axis]
    x = graph.reshape(x, [*shape[: axis + 1], 1, *shape[axis + 1 :]])
    pads = np.zeros(2 * (rank + 1), np.int64)
    pads[rank + 1 + axis + 1] = between
    x = graph.emit("Pad", x, pads, filling)
    x = graph.reshape(x, [*shape[:axis], size * (1 + between), *shape[axis + 1 :]])
    columns = np.array([[0, size + (size - 1) * between, axis, 1]]).T
    return graph.emit("Slice", x, *columns)


def _slice(graph, equation, operands):
    params, shape = equation.params, equation.invars[0].aval.shape
    strides = params["strides"] or [1] * len(shape)
    ranges = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    cut = [
        (start, limit, axis, stride)
        for axis, (start, limit, stride) in enumerate(ranges)
        if (start, limit, stride) != (0, shape[axis], 1)
    ]
    if not cut:
        return operands[0]
    columns = np.array(cut, np.int64).T
    return graph.emit("Slice", *operands, *columns)


def _dynamic_slice(graph, equation, operands):
    """From starts that are moved, where need be, such that the slice is inside."""
    x, *starts = operands
    sizes, shape = equation.params["slice_sizes"], equation.invars[0].aval.shape
    axes = [axis for axis, size in enumerate(sizes) if size != shape[axis]]
    if not axes:
        return x
    sizes, limits = np.array([(sizes[i], shape[i] - sizes[i]) for i in axes]).T
    starts = [graph.reshape(starts[axis], [1]) for axis in axes]
    first = graph.emit("Concat", *starts, axis=0)
    first = graph.emit("Cast", first, to=TensorProto.INT64)
    first = graph.emit("Min", graph.emit("Max", first, np.zeros(1, np.int64)), limits)
    last = graph.emit("Add", first, sizes)
    return graph.emit("Slice", x, first, last, np.array(axes, np.int64))


def _reverse(graph, equation, operands):
    axes = np.array(equation.params["dimensions"], np.int64)
    shape = equation.invars[0].aval.shape
    minus_one = np.full(len(axes), -1, np.int64)
    ends = np.array([-shape[axis] - 1 for axis in axes], np.int64)
    return graph.emit("Slice", *operands, minus_one, ends, axes, minus_one)


def _dot_general(graph, equation, operands):
    """Gemm of two matrices; of other arrays Einsum."""
    contracted, batched = equation.params["dimension_numbers"]
    ranks = [atom.aval.ndim for atom in equation.invars]
    if ranks == [2, 2] and [len(axes) for axes in contracted] == [1, 1]:
        [[left], [right]] = contracted
        return graph.emit("Gemm", *operands, transA=int(left == 0), transB=right)
    free = iter(string.ascii_letters)
    letters = [[""] * rank for rank in ranks]
    for pairs in (batched, contracted):
        for left, right in zip(*pairs, strict=True):
            letters[0][left] = letters[1][right] = next(free)
    result = [letters[0][axis] for axis in batched[0]]
    for side in letters:
        for axis, letter in enumerate(side):
            if not letter:
                side[axis] = next(free)
                result.append(side[axis])
    left, right, result = map("".join, (*letters, result))
    return graph.emit("Einsum", *operands, equation=f"{left},{right}->{result}")


def _convolution(graph, equation, operands):
    """ONNX has images [B, C, H, W] and kernels [F, C, h, w]."""
    params = equation.params
    if any(n != 1 for n in (*params["lhs_dilation"], params["batch_group_count"])):
        raise ExportError("model.onnx: a transposed convolution has no counterpart")
    images, kernel, outputs = params["dimension_numbers"]
    low, high = zip(*params["padding"], strict=True)
    convolved = graph.emit(
        "Conv",
        graph.transpose(operands[0], images),
        graph.transpose(operands[1], kernel),
        pads=[*low, *high],
        strides=list(params["window_strides"]),
        dilations=list(params["rhs_dilation"]),
        group=params["feature_group_count"],
    )
    return graph.transpose(convolved, np.argsort(outputs).tolist())


OPS: dict[str, Callable[[Graph, Any, Sequence[Value]], Value | list[Value]]] = {
    **{
        name: _elementwise(op)
        for name, op in {
            "abs": "Abs", "add": "Add", "and": "And", "div": "Div",
            "eq": "Equal", "erf": "Erf", "exp": "Exp", "ge": "GreaterOrEqual",
            "gt": "Greater", "le": "LessOrEqual", "log": "Log", "logistic": "Sigmoid",
            "lt": "Less", "max": "Max", "min": "Min", "mul": "Mul", "neg": "Neg",
            "not": "Not", "or": "Or", "pow": "Pow", "sign": "Sign", "sqrt": "Sqrt",
            "stop_gradient": "Identity", "sub": "Sub", "tanh": "Tanh",
        }.items()
    },
    "select_n": _elementwise("Where", (0, 2, 1)),
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "convert_element_type": _convert_type,
    "dot_general": _dot_general,
    "dynamic_slice": _dynamic_slice,
    "integer_pow": _integer_pow,
    "ne": _not_equal,
    "pad": _pad,
    "reduce_max": _reduction("ReduceMax"),
    "reduce_sum": _reduction("ReduceSum"),
    "reshape": _reshape,
    "rev": _reverse,
    "rsqrt": _rsqrt,
    "slice": _slice,
    "split": _split,
    "square": _square,
    "stack": _stack,
    "squeeze": _reshape,
    "transpose": _transpose,
}  # fmt: skip
