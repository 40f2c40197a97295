"""Five common notebooks as their authors describe them, and what they claim on MNIST.

What a notebook leaves open is as Keras has it: Adam or RMSprop at 1e-3, a constant
rate, no decay, a tenth held out for validation. Where it asks for one-hot targets with
categorical cross-entropy, the loss equals the sparse cross-entropy that is trained with
here (`tests/test_metrics.py`).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from mnist_jax.config import Config, make_config
from mnist_jax.presets import NOT_ELASTIC


class Recipe(NamedTuple):
    """One model of a notebook, trained with every seed."""

    name: str
    model: str
    settings: Mapping[str, Any]
    claim: str = ""
    at_least: float | None = None  # the claim as a test accuracy

    def config(self, dataset: str, seed: int, **folders: Any) -> Config:
        settings = _PLAIN | dict(self.settings) | folders
        return make_config(self.model, dataset, seed=seed, **settings)


class Tuning(NamedTuple):
    """A search for better settings of a recipe, on the validation part."""

    recipe: Recipe  # whose settings are not varied
    vary: tuple[str, ...]  # as --vary of sweep


class Notebook(NamedTuple):
    key: str
    title: str
    claim: str
    recipes: tuple[Recipe, ...]
    tuning: Tuning | None = None


_PLAIN = dict(
    NOT_ELASTIC,
    optimizer="adam",
    learning_rate=1e-3,
    schedule="constant",
    clip_norm=0.0,
    augment="none",
    batch_size=128,
    epochs=10,
)
_MORE = "extension"


def _ann(name: str, *sizes: int, **settings: Any) -> Recipe:
    settings = dict(hidden_sizes=sizes, dropout=0.0) | settings
    return Recipe(name, "mlp", settings)


_FIVE = dict(epochs=5, batch_size=32)
_CNN = Recipe("CNN", "cnn", dict(_FIVE, dropout=0.0), "about 98%", 0.98)
_RELU = _ann("ANN 128", 128)

NOTEBOOKS = (
    Notebook(
        "rows",
        "Row RNN study",
        "recurrent nets learn from rows; LSTM and GRU are steadier than SimpleRNN; all "
        "are below the CNN",
        (
            Recipe("SimpleRNN", "rnn", {}, "learns from rows"),
            Recipe("LSTM", "lstm", {}, "steadier than SimpleRNN"),
            Recipe("GRU", "gru", {}, "steadier than SimpleRNN"),
            Recipe("CNN", "cnn", dict(dropout=0.0), "above the three"),
        ),
    ),
    Notebook(
        "lstm",
        "LSTM 128 with RMSprop",
        "no figure is stated",
        (Recipe("LSTM, RMSprop", "lstm", dict(optimizer="rmsprop"), "none stated"),),
    ),
    Notebook(
        "mlp",
        "MLP with dropout",
        "above 95%; 3 with 8 and 4 with 9 are confused most",
        (
            Recipe(
                "MLP 512-512, dropout",
                "mlp",
                dict(hidden_sizes=(512, 512), dropout=0.2, epochs=20),
                "above 95%",
                0.95,
            ),
        ),
    ),
    Notebook(
        "ann_cnn",
        "ANN versus CNN",
        "softmax regression about 92%, ANN 95 to 96%, CNN about 98%, in five epochs",
        (
            Recipe("softmax regression", "linear", _FIVE, "about 92%", 0.92),
            _ann("ANN 128-64", 128, 64, **_FIVE)._replace(
                claim="95 to 96%", at_least=0.96
            ),
            _CNN,
            Recipe(
                "CNN, augmented", "cnn", dict(_CNN.settings, augment="affine"), _MORE
            ),
            Recipe("LeNet-5", "lenet5", _FIVE, _MORE),
            Recipe("ResNet", "resnet", _FIVE, _MORE),
        ),
        Tuning(
            _CNN._replace(name="CNN, tuned", claim=_MORE, at_least=None),
            ("learning_rate=1e-4..1e-1", "batch_size=32,128", "optimizer=adam,sgd"),
        ),
    ),
    Notebook(
        "relu",
        "Plain ReLU ANN",
        "no figure is stated",
        (
            _RELU._replace(claim="none stated"),
            *(
                _ann(f"ANN 128 x {n}", *[128] * n)._replace(claim=_MORE)
                for n in (2, 3, 4)
            ),
            Recipe("CNN", "cnn", dict(dropout=0.0), _MORE),
        ),
        Tuning(
            _RELU._replace(name="ANN, tuned", claim=_MORE),
            (
                "learning_rate=1e-4..1e-2",
                "dropout=0..0.5",
                "label_smoothing=0..0.1",
                "hidden_sizes=128,512,512-512",
            ),
        ),
    ),
)
