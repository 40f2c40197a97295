"""An ONNX graph in the making: nodes, and the arrays that they take and give."""

import copy
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper

from mnist_jax.export.program import STAND_IN


class Broadcast(NamedTuple):
    """An array that is to be repeated along some axes."""

    value: Any  # a `Value` with as many axes, of size 1 where it is repeated, or none
    shape: tuple[int, ...]


# A constant, the name of another array in the graph, or either to be repeated.
Value = np.ndarray | str | Broadcast


class Graph:
    """Nodes, and what they have in common with the graph around them."""

    def __init__(self, names: Mapping[str, np.ndarray], batch_of: str):
        """Makes an empty graph.

        Args:
          names: constants that have one.
          batch_of: the input whose first axis is the batch.
        """
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}  # those that nodes take, by name
        self._names = {_key(array): name for name, array in names.items()}
        self._numbers = itertools.count()
        self._batch_of = batch_of

    def body(self) -> "Graph":
        """An empty graph that sees the names of this one."""
        inner = copy.copy(self)
        inner.nodes = []
        return inner

    def new_name(self, what: str) -> str:
        return f"{what}_{next(self._numbers)}"

    def emit(self, op: str, *values: Value, num: int = 1, **attributes: Any) -> Any:
        """Adds a node; returns the name of its output, of several a list."""
        inputs = [self.name(value) for value in values]
        outputs = [self.new_name(op) for _ in range(num)]
        # Runtimes name what they fuse after its nodes, which have to differ.
        node = helper.make_node(op, inputs, outputs, name=outputs[0], **attributes)
        self.nodes.append(node)
        return outputs if num > 1 else outputs[0]

    def name(self, value: Value) -> str:
        """Of an array that is there as a whole."""
        if isinstance(value, Broadcast):
            return self.emit("Expand", value.value, self._sizes(value.shape))
        if isinstance(value, str):
            return value
        name = self._names.setdefault(_key(value), f"constant_{len(self._names)}")
        self.constants[name] = value
        return name

    def _sizes(self, shape: Sequence[int]) -> Value:
        """A shape as int64 [rank]."""
        fixed = np.array([0 if size % STAND_IN == 0 else size for size in shape])
        if not (multiples := np.array(shape) // STAND_IN).any():
            return fixed
        batch = self.emit("Shape", self._batch_of, start=0, end=1)
        return self.emit("Add", self.emit("Mul", batch, multiples), fixed)

    def reshape(self, value: Value, shape: Sequence[int]) -> Value:
        """One of the sizes at most depends on the batch."""
        sizes = [-1 if size and size % STAND_IN == 0 else size for size in shape]
        if isinstance(value, np.ndarray):
            return value.reshape(sizes)
        return self.emit("Reshape", value, np.array(sizes, np.int64))

    def transpose(self, value: Value, permutation: Sequence[int]) -> Value:
        if list(permutation) == sorted(permutation):
            return value
        if isinstance(value, np.ndarray):
            return value.transpose(permutation)
        return self.emit("Transpose", value, perm=list(permutation))


def _key(array: np.ndarray) -> tuple:
    return array.dtype.str, array.shape, array.tobytes()
