"""What is compared in inference: a competitor is an entry here and a worker module."""

from typing import NamedTuple


class Framework(NamedTuple):
    """One competitor."""

    name: str  # in tables and figures
    worker: str  # a module of this folder
    interpreter: str | None = None  # --<interpreter>_python; None for this one
    modules: str = ""  # that it has to import
    needs_compiler: bool = False  # for C++


OURS = "mnist_jax"
# By the name that the worker is told.
FRAMEWORKS = {
    OURS: Framework("mnist_jax", "mnist_jax_jit"),
    "torch": Framework("PyTorch", "torch_eval", "torch", "torch"),
    "torch_compiled": Framework(
        "torch.compile", "torch_eval", "torch", "torch", needs_compiler=True
    ),
    "onnxruntime": Framework(
        "onnxruntime", "torch_eval", "torch", "torch, onnx, onnxruntime"
    ),
    "keras": Framework("Keras", "keras_function", "keras", "keras, tensorflow"),
    "keras_xla": Framework("Keras XLA", "keras_function", "keras", "keras, tensorflow"),
}
# Those that the other frameworks' workers build.
COMPARED = ("linear", "mlp", "cnn", "rnn", "lstm", "gru")
