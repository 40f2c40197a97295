"""What is compared: a competitor is one entry here, and a worker module beside it."""

from typing import NamedTuple

from experiments.speed.frameworks import families


class Interpreter(NamedTuple):
    """A Python outside of this package's environment, named by --<key>_python."""

    library: str  # its name in texts
    modules: str  # that it has to import, as in "keras, tensorflow"


class Framework(NamedTuple):
    """One competitor."""

    name: str  # in tables
    worker: str  # a module of this folder
    interpreter: str | None = None  # a key of INTERPRETERS; None for this one
    models: tuple[str, ...] = tuple(families.BATCH_SIZES)  # that it trains
    needs_compiler: bool = False  # for C++

    @property
    def library(self) -> str:
        """Its name in figures, without the way it is used."""
        if self.interpreter:
            return INTERPRETERS[self.interpreter].library
        return self.name.partition(",")[0]


INTERPRETERS = {
    "torch": Interpreter("PyTorch", "torch"),
    "keras": Interpreter("Keras", "keras, tensorflow"),
}
OURS = "mnist_jax"
# By the name that the worker is told.
FRAMEWORKS = {
    OURS: Framework("mnist_jax", "mnist_jax_run"),
    "flax": Framework("Flax", "flax_linen"),
    "flax_scan": Framework("Flax, scanned", "flax_scan"),
    "torch": Framework("PyTorch", "pytorch", "torch"),
    "torch_loader": Framework("PyTorch DataLoader", "pytorch", "torch"),
    "torch_tuned": Framework("PyTorch, tuned", "pytorch_tuned", "torch"),
    "torch_compile": Framework(
        "PyTorch, compiled",
        "pytorch_tuned",
        "torch",
        models=("linear", "mlp", "cnn", "rnn"),
        needs_compiler=True,
    ),
    "keras": Framework("Keras", "keras_fit", "keras"),
    "keras_tuned": Framework("Keras, tuned", "keras_tuned", "keras"),
    "keras_loop": Framework("Keras, own loop", "keras_tuned", "keras"),
    "sklearn": Framework("scikit-learn", "sklearn_mlp", models=("linear", "mlp")),
}
# No competitor: the rate that a program of matmuls alone reaches.
MATMUL = "matmul"
