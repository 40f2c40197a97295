"""What exported programs compute, and which operations they take."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from exported_models import MODELS, SHAPE, assert_close, make, make_images
from flax import traverse_util
from safetensors import numpy as safetensors

from mnist_jax import train_step
from mnist_jax.export import errors, files, onnx_model, onnx_ops, program

# Compiles in a third of the time.
FAST = {"compiler_options": {"xla_backend_optimization_level": 0}}


@functools.cache
def trace(case):
    return program.trace(*make(case), SHAPE)


def load_onnx(content, folder):
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    names = [node.name for node in nodes(model.graph)]
    assert "" not in names and len({*names}) == len(names)
    (folder / "model.onnx").write_bytes(content)
    return onnx_model.load(folder / "model.onnx")


def nodes(graph):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from nodes(attribute.g)


def load_stablehlo(content):
    exported = jax.export.deserialize(bytearray(content))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    return jax.jit(exported.call, **FAST)


@pytest.mark.parametrize("case", MODELS)
def test_programs_give_the_models_logits(case, tmp_path):
    """In batches of other sizes than the one that they were traced at."""
    model, params = make(case)
    sizes = (1, 7, 1000) if case in ("linear", "mlp") else (7,)
    images = make_images(sizes[-1])
    eval_step = jax.jit(train_step.make_eval_step(model), **FAST)
    expected = np.asarray(eval_step(params, images))
    stablehlo = load_stablehlo(program.to_stablehlo(trace(case)))
    for size in sizes:
        assert_close(np.asarray(stablehlo(images[:size])), expected[:size])
    by_onnx = load_onnx(onnx_model.to_onnx(trace(case), {}), tmp_path)
    for size in (1, *sizes):
        assert_close(by_onnx(images[:size]), expected[:size])


@pytest.mark.parametrize("case", MODELS)
def test_weights_are_read_back_as_they_are(case):
    _, params = make(case)
    turned = {name: x.T.copy().T for name, x in trace(case).params.items()}
    tensors = safetensors.load(files.to_safetensors(turned, {}))
    loaded = traverse_util.unflatten_dict(tensors, sep="/")
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    shapes = jax.tree.map(np.shape, params)
    assert jax.tree.map(np.shape, loaded) == shapes, "scalars are no arrays of one"


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            if hasattr(value, "jaxpr"):
                yield from equations(value.jaxpr)


def test_programs_hold_nothing_that_is_for_cpus():
    """XLA's own two convolutions, of which Winograd's algorithm would leave none."""
    found = list(equations(trace("cnn").jaxpr.jaxpr))
    names = [equation.primitive.name for equation in found]
    assert names.count("conv_general_dilated") == 2
    assert not {"cond", "platform_index", "jit", "custom_vjp_call"} & {*names}
    for equation in found:
        if equation.primitive.name in ("conv_general_dilated", "dot_general"):
            assert {*equation.params["precision"]} == {jax.lax.Precision.HIGHEST}


def test_recurrences_carry_nothing_that_only_training_reads():
    equations_of_lstm = trace("lstm").jaxpr.jaxpr.eqns
    [scan] = [e for e in equations_of_lstm if e.primitive.name == "scan"]
    assert program.scan_counts(scan)[1] == 2 == len(scan.outvars), "h and c"


class Probe(nn.Module):
    """A function of images [b, 3, 4, 1] in 0 to 1 in the place of a model."""

    function: Callable

    def __call__(self, images):
        return self.function(images[..., 0])


X = np.linspace(-1, 1, 20, dtype=np.float32).reshape(4, 5)
# Of x [b, 3, 4].
FUNCTIONS = {
    "exp": lambda x: jnp.exp(x),
    "log": lambda x: jnp.log(x + 1),
    "sqrt": lambda x: jnp.sqrt(x) * jax.lax.rsqrt(x + 1) - jnp.abs(-x),
    "erf": lambda x: jax.scipy.special.erf(x) / (1 + x) ** 2 + jnp.sign(x - 0.5),
    "logistic": lambda x: jax.nn.sigmoid(x - 0.5),
    "pow": lambda x: x**3 + x**0.7 + jnp.square(x),
    "min, max": lambda x: jnp.minimum(x, 0.6) + jnp.maximum(0.3, x),
    "where": lambda x: jnp.where((x > 0.2) & ~(x >= 0.9) | (x == 0), x, -1.0),
    "compare": lambda x: jnp.where((x < 0.3) | (x <= 0.1) & (x != 0), 2.0, x),
    "softmax": lambda x: jax.nn.softmax(x, axis=-1),
    "mean": lambda x: (x - x.mean(-1, keepdims=True)) / (x.max(1) + 1)[:, None],
    "matmul": lambda x: x @ X,
    "attention": lambda x: jnp.einsum("bqd,bkd->bqk", x, x) @ x,
    "outer": lambda x: jnp.einsum("bi,bj->bij", x[:, 0], x[:, 1]),
    "rows of a kernel": lambda x: jax.lax.dot_general(
        X, x.reshape(len(x), -1)[:, :4], (((0,), (1,)), ((), ()))
    ).T,
    "slice": lambda x: jnp.concatenate([x[:, 1:, ::2], x[:, :2, ::-2]], axis=-1),
    "reverse": lambda x: x[:, ::-1, ::-1],
    "pad": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 3)), constant_values=0.5),
    "pad between": lambda x: jax.lax.pad(x, 0.5, ((0, 0, 0), (1, 2, 2), (0, 1, 1))),
    "split": lambda x: sum(jnp.split(x, 2, axis=2)) * jnp.stack([x[:, 0, :2]] * 3, 1),
    "constants": lambda x: x + jnp.tanh(jnp.arange(4.0)) + jnp.zeros((len(x), 1, 1)),
    "only constants": lambda x: jnp.zeros((len(x), 3)) + jnp.ones((len(x), 3)),
    "reads in a scan": lambda x: jax.lax.scan(
        lambda carry, t: (
            carry + jax.lax.dynamic_slice_in_dim(x, t + 1, 2, axis=1).sum((1, 2)),
            carry * 2,
        ),
        jnp.zeros(len(x)), jnp.arange(4),
    )[1].T,
    "backward scan": lambda x: jax.lax.scan(
        lambda carry, row: (carry + row, carry.sum(-1)),
        x[:, 0], x.swapaxes(0, 1), reverse=True,
    )[1].T,
    "strided convolution": lambda x: jax.lax.conv_general_dilated(
        x[..., None], X[:2, :3, None, None] * jnp.ones((1, 1, 1, 5)),
        (1, 2), ((1, 0), (2, 1)), rhs_dilation=(2, 1),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_operations_of_other_models(name, tmp_path):
    def function(x):
        return FUNCTIONS[name](x).reshape(len(x), -1)

    images = make_images(6, (3, 4, 1))
    expected = np.asarray(function(train_step.to_float(images)[..., 0]))
    traced = program.trace(Probe(function), {}, (3, 4, 1))
    by_onnx = load_onnx(onnx_model.to_onnx(traced, {}), tmp_path)
    for size in (1, 6):
        assert_close(by_onnx(images[:size]), expected[:size])
    if "scan" in name:
        stablehlo = load_stablehlo(program.to_stablehlo(traced))
        assert_close(np.asarray(stablehlo(images)), expected)


def test_every_operation_is_covered():
    used = set()
    for case in MODELS:
        found = equations(trace(case).jaxpr.jaxpr)
        used |= {equation.primitive.name for equation in found}
    for function in FUNCTIONS.values():
        jaxpr = program.trace(Probe(function), {}, (3, 4, 1)).jaxpr.jaxpr
        used |= {equation.primitive.name for equation in equations(jaxpr)}
    # Before 0.10.1 JAX had no such operation: what stacks there concatenates.
    missing = {"stack"} if jax.__version_info__ < (0, 10, 1) else set()
    assert set(onnx_ops.OPS) - used == missing


def test_a_branch_is_refused():
    model = Probe(lambda x: jax.lax.cond(x.sum() > 0, jnp.tanh, jnp.sin, x))
    with pytest.raises(errors.ExportError, match="has a 'cond'.* use jax.lax.scan"):
        program.trace(model, {}, (3, 4, 1))
