"""What a compiled program does in a training step, read off its text.

XLA's own cost analysis counts the body of a loop once. Here loops count as often as
they run, and the loop over training steps, whose end the program does not know, once.
"""

import functools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

# Bytes of an element; of types of less than a byte one.
_TYPE = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\](\{[^}]*\})?")
_NAME = re.compile(r"%([\w.-]+)")
_CALLED = re.compile(
    r"\b(?:calls|to_apply|body|condition|branch_computations|true_computation"
    r"|false_computation|called_computations)=(\{[^}]*\}|%[\w.-]+)"
)
_KNOWN_TRIPS = re.compile(r'known_trip_count[^}]*?"?n"?\s*[:=]\s*"?(\d+)')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
# Of these nothing is done when the program runs, or it is part of another's doing.
_NOTHING = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all",
    "partition-id", "replica-id", "iota", "domain", "opt-barrier", "all-reduce-done",
    "copy-done", "async-done", "async-update", "slice-done", "custom-call-done",
}  # fmt: skip
_LOOPS_AND_CALLS = {"while", "conditional", "call"}
_SLICED = {"dynamic-slice", "gather"}


class Instruction(NamedTuple):
    """One line of a computation."""

    name: str
    shape: str  # its type, as text
    opcode: str
    operands: tuple[str, ...]  # names
    attributes: str  # the rest of the line
    is_root: bool


class Counts(NamedTuple):
    """Of one training step on one device."""

    kernels: float = 0  # operations that the device is asked for one by one
    flops: float = 0  # of matmuls and convolutions
    bytes: float = 0  # read from and written to memory
    cycles: float = 0  # that the compiler estimates; TPU alone
    matmul_cycles: float = 0  # of these in operations with a matmul or convolution
    all_reduces: float = 0
    all_reduce_bytes: float = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))

    def times(self, number: float) -> "Counts":
        return Counts(*(number * x for x in self))


class Program:
    """An optimized HLO module, as `Compiled.as_text` prints it."""

    def __init__(self, text: str):
        self._computations: dict[str, dict[str, Instruction]] = {}
        self._entry = ""
        own: dict[str, Instruction] | None = None
        for line in text.splitlines():
            if own is None and line.endswith("{") and "->" in line:
                name = _NAME.search(line)
                if name is None:
                    continue
                own = self._computations.setdefault(name[1], {})
                if line.startswith("ENTRY"):
                    self._entry = name[1]
            elif line.strip() == "}":
                own = None
            elif own is not None and (parsed := _parse(line)):
                own[parsed.name] = parsed

    def step(self) -> Counts:
        """What the body of the loop over training steps does.

        Raises:
          ValueError: there is no such loop, or more than one.
        """
        steps = [x for x in self._loops(self._entry) if self._trips(x) is None]
        if len(steps) != 1:
            raise ValueError(f"{len(steps)} loops without a known end: expected one")
        return self._count(_attribute(steps[0], "body"))

    def library_calls(self) -> list[str]:
        """Targets of custom calls, each once."""
        found = {
            match[1]
            for computation in self._computations.values()
            for one in computation.values()
            for match in re.finditer(r'custom_call_target="([^"]+)"', one.attributes)
        }
        return sorted(found)

    def _loops(self, name: str) -> Iterator[Instruction]:
        """The outermost loops of a computation and of what it calls."""
        for one in self._computations[name].values():
            if one.opcode == "while":
                yield one
            elif one.opcode in _LOOPS_AND_CALLS:
                for called in _called(one):
                    yield from self._loops(called)

    def _trips(self, loop: Instruction) -> int | None:
        """How often a loop runs; None where that is not a constant of the program."""
        if known := _KNOWN_TRIPS.search(loop.attributes):
            return int(known[1])
        condition = self._computations[_attribute(loop, "condition")]
        # The only constant that the counter is compared with; none, if the end is one
        # of the loop's own values.
        constants = [
            int(match[1])
            for text in self._texts(condition)
            if (match := re.search(r"= s32\[\]\S* constant\((\d+)\)", text))
        ]
        return constants[0] if len(constants) == 1 else None

    def _texts(self, computation: dict[str, Instruction]) -> Iterator[str]:
        """The lines of a computation and of those that it calls."""
        for one in computation.values():
            operands = ", ".join(f"%{x}" for x in one.operands)
            if one.opcode == "constant":
                operands = one.attributes.partition(")")[0]
            yield f"%{one.name} = {one.shape} {one.opcode}({operands})"
            for called in _called(one):
                yield from self._texts(self._computations[called])

    @functools.cache  # noqa: B019 (a program lives as long as its process)
    def _count(self, name: str) -> Counts:
        computation = self._computations[name]
        return sum(
            (self._of(one, computation) for one in computation.values()), Counts()
        )

    def _of(self, one: Instruction, computation: dict[str, Instruction]) -> Counts:
        if one.opcode in _NOTHING:
            return Counts()
        if one.opcode == "while":
            trips = self._trips(one)
            return self._count(_attribute(one, "body")).times(trips or 1)
        if one.opcode == "conditional":  # its most expensive branch
            return max((self._count(x) for x in _called(one)), key=lambda x: x.bytes)
        if one.opcode == "call":
            return sum((self._count(x) for x in _called(one)), Counts())
        flops = self._flops(one, computation)
        cycles = _CYCLES.search(one.attributes)
        cycles = int(cycles[1]) if cycles else 0
        is_all_reduce = one.opcode in ("all-reduce", "all-reduce-start")
        sent = sum(num_bytes(computation[x].shape, False) for x in one.operands)
        return Counts(
            kernels=1,
            flops=flops,
            bytes=self._traffic(one, computation),
            cycles=cycles,
            matmul_cycles=cycles if flops else 0,
            all_reduces=int(is_all_reduce),
            all_reduce_bytes=sent if is_all_reduce else 0,
        )

    def _flops(self, one: Instruction, computation: dict[str, Instruction]) -> float:
        shapes = [dimensions(computation[x].shape) for x in one.operands]
        output = dimensions(one.shape)
        if one.opcode == "dot":
            contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", one.attributes)
            axes = [int(x) for x in contracted[1].split(",") if x]
            return 2 * math.prod(output) * math.prod(shapes[0][x] for x in axes)
        if "dim_labels=" in one.attributes and len(shapes) > 1:
            image, kernel, result = shapes[0], shapes[1], output
            if "BackwardInput" in one.attributes:  # of cuDNN, in a forward one's terms
                image, result = output, shapes[0]
            elif "BackwardFilter" in one.attributes:
                kernel, result = output, shapes[1]
            return _convolution_flops(one.attributes, image, kernel, result)
        if one.opcode == "custom-call" and "__cublas" in one.attributes:
            dims = re.search(
                r'"lhs_contracting_dimensions":\[([^\]]*)\]', one.attributes
            )
            axes = [int(x.strip('" ')) for x in dims[1].split(",") if x.strip('" ')]
            return 2 * math.prod(output) * math.prod(shapes[0][x] for x in axes)
        inner = 0.0
        for called in _called(one):
            own = self._computations[called]
            inner += sum(self._flops(x, own) for x in own.values())
        return inner

    def _traffic(self, one: Instruction, computation: dict[str, Instruction]) -> float:
        """Bytes of what an operation reads and writes.

        Of an array that a fusion takes a slice of, the slice counts.
        """
        called = _called(one) if one.opcode == "fusion" else []
        inside = self._computations[called[0]] if called else {one.name: one}
        users: dict[str, list[Instruction]] = {}
        for x in inside.values():
            for operand in x.operands:
                users.setdefault(operand, []).append(x)
        names = list(one.operands)
        if called:
            parameters = {
                int(x.attributes.partition(")")[0]): x.name
                for x in inside.values()
                if x.opcode == "parameter"
            }
            names = [parameters[i] for i in range(len(one.operands))]
        total = 0.0
        for outer, inner in zip(one.operands, names, strict=True):
            size = num_bytes(computation[outer].shape)
            uses = [_slice_of(x, inner, inside) for x in users.get(inner, [])]
            if uses and None not in uses:
                size = min(size, sum(uses))
            total += size
        written = num_bytes(one.shape)
        for x in inside.values():
            if x.opcode == "dynamic-update-slice" and x.operands[1] in inside:
                whole, part = num_bytes(x.shape), num_bytes(inside[x.operands[1]].shape)
                written = max(part, written - whole + part)
        return total + written


def dimensions(shape: str) -> list[int]:
    """Of an array's type; of a tuple's its first array's."""
    found = _TYPE.search(shape)
    return [int(x) for x in found[3].split(",") if x] if found else []


def num_bytes(shape: str, in_memory: bool = True) -> int:
    """Of an array, or of all in a tuple.

    Args:
      shape: its type, as text.
      in_memory: count nothing for what a TPU's compiler keeps in its vector memory.
    """
    total = 0
    for kind, bits, sizes, layout in _TYPE.findall(shape):
        if in_memory and "S(1)" in layout:
            continue
        width = 1 if kind == "pred" else max(1, int(bits) // 8)
        total += width * math.prod(int(x) for x in sizes.split(",") if x)
    return total


def _parse(line: str) -> Instruction | None:
    match = re.match(r"\s+(ROOT )?%([\w.-]+) = (.*)", line)
    if match is None:
        return None
    rest, depth, end = match[3], 0, 0
    for end, letter in enumerate(rest):  # noqa: B007
        depth += (letter in "([{") - (letter in ")]}")
        if letter == " " and depth == 0:
            break
    shape, rest = rest[:end], rest[end + 1 :]
    opcode, _, rest = rest.partition("(")
    depth, end = 1, 0
    for end, letter in enumerate(rest):  # noqa: B007
        depth += (letter in "([{") - (letter in ")]}")
        if depth == 0:
            break
    operands = tuple(_NAME.findall(rest[:end]))
    if opcode in ("constant", "parameter"):
        operands, end = (), -1
    return Instruction(
        match[2], shape, opcode, operands, rest[end + 1 :], bool(match[1])
    )


def _convolution_flops(
    attributes: str, image: list[int], kernel: list[int], result: list[int]
) -> float:
    """Of a convolution of these shapes: products with padding or holes do not count."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", attributes)
    window = re.search(r"window=\{([^}]*)\}", attributes)
    window = dict(x.split("=") for x in window[1].split()) if window else {}
    of_image, of_kernel, of_result = labels.groups()
    pairs = 1
    for axis in sorted(x for x in of_kernel if x.isdigit()):

        def given(name, default, axis=int(axis)):
            return window[name].split("x")[axis] if name in window else default

        strides, before = (
            int(given("stride", 1)),
            int(given("pad", "0_0").split("_")[0]),
        )
        holes, spread = int(given("lhs_dilate", 1)), int(given("rhs_dilate", 1))
        places = (
            np.arange(result[of_result.index(axis)])[:, None] * strides
            + np.arange(kernel[of_kernel.index(axis)]) * spread
            - before
        )
        last = (image[of_image.index(axis)] - 1) * holes
        pairs *= int(((places >= 0) & (places <= last) & (places % holes == 0)).sum())
    batch = result[of_result.index("b")] * result[of_result.index("f")]
    return 2 * batch * kernel[of_kernel.index("i")] * pairs


def _called(one: Instruction) -> list[str]:
    return [
        name
        for match in _CALLED.findall(one.attributes)
        for name in _NAME.findall(match)
    ]


def _attribute(one: Instruction, name: str) -> str:
    return re.search(rf"\b{name}=%([\w.-]+)", one.attributes)[1]


def _slice_of(
    user: Instruction, name: str, inside: dict[str, Instruction]
) -> float | None:
    """Bytes that `user` takes of `name`, if that is a part of it."""
    if user.operands[:1] != (name,):
        return None
    if user.opcode in _SLICED:
        return num_bytes(user.shape, False)
    if user.opcode == "dynamic-update-slice" and user.operands[1] in inside:
        return 0.0
    return None
