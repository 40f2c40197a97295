"""The classifiers, as Flax linen modules, and their registry.

Each takes images float32 [B, 28, 28, 1] in 0 to 1 and returns logits float32
[B, 10]. Training passes `keys`, one PRNG key per image, which dropout draws from;
without keys nothing is dropped. To add a model, write a module in this folder whose
fields have the names of the settings in `config.Config` that it reads, and enter it
in `MODELS`.
"""

import dataclasses

import flax.linen as nn

from mnist_jax.config import Config, ConfigError
from mnist_jax.models.convolutional import CNN, ConvPool, LeNet5, ResNet
from mnist_jax.models.dense import MLP, Linear
from mnist_jax.models.layers import NUM_CLASSES, Dense, drop
from mnist_jax.models.recurrent import GRU, LSTM, RNN, RecurrentLayer

__all__ = [
    "CNN",
    "GRU",
    "LSTM",
    "MLP",
    "MODELS",
    "NUM_CLASSES",
    "RNN",
    "ConvPool",
    "Dense",
    "LeNet5",
    "Linear",
    "RecurrentLayer",
    "ResNet",
    "build_model",
    "drop",
]

MODELS: dict[str, type[nn.Module]] = {
    "linear": Linear,
    "mlp": MLP,
    "cnn": CNN,
    "lenet5": LeNet5,
    "resnet": ResNet,
    "rnn": RNN,
    "lstm": LSTM,
    "gru": GRU,
}

# The settings in Config that belong to a model, and not to its training.
MODEL_SETTINGS = (
    "hidden_sizes",
    "dropout",
    "units",
    "layers",
    "bidirectional",
    "sequence",
)


def build_model(config: Config) -> nn.Module:
    """The module that `config` names, with its settings.

    Raises:
      ConfigError: no such model, or a setting that this model does not have.
    """
    if config.model not in MODELS:
        raise ConfigError(
            f"--model={config.model}: expected one of {', '.join(MODELS)}"
        )
    module = MODELS[config.model]
    has = {field.name for field in dataclasses.fields(module)} & set(MODEL_SETTINGS)
    given = {
        name: getattr(config, name)
        for name in MODEL_SETTINGS
        if getattr(config, name) is not None
    }
    for name in given:
        if name not in has:
            owns = ", ".join(f"--{n}" for n in MODEL_SETTINGS if n in has) or "none"
            raise ConfigError(
                f"--{name} is not a setting of --model={config.model}: "
                f"leave it out (its own settings: {owns})"
            )
    return module(**given)
