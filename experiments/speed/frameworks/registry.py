"""What is compared: a competitor is one entry here, and a worker module beside it."""

from typing import NamedTuple


class Interpreter(NamedTuple):
    """A Python outside of this package's environment, named by --<key>_python."""

    library: str  # its name in texts
    modules: str  # that it has to import, as in "keras, tensorflow"


class Framework(NamedTuple):
    """One competitor."""

    name: str  # in tables and figures
    worker: str  # a module of this folder
    interpreter: str | None = None  # a key of INTERPRETERS; None for this one


INTERPRETERS = {
    "torch": Interpreter("PyTorch", "torch"),
    "keras": Interpreter("Keras", "keras, tensorflow"),
}
OURS = "mnist_jax"
# By the name that the worker is told.
FRAMEWORKS = {
    OURS: Framework("mnist_jax", "mnist_jax_run"),
    "flax": Framework("Flax", "flax_linen"),
    "torch": Framework("PyTorch", "pytorch", "torch"),
    "torch_loader": Framework("PyTorch DataLoader", "pytorch", "torch"),
    "keras": Framework("Keras", "keras_fit", "keras"),
}
# No competitor: the rate that a program of matmuls alone reaches.
MATMUL = "matmul"
