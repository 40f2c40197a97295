"""Each model's settings, where a person gives none.

A model without an entry has the defaults of `config.Config` and its own.
"""

from typing import Any

# Weak deformations, and half of the images sharp: docs/selection.md compares others.
ELASTIC = dict(
    augment="elastic", affine_shift=1.0, elastic_pixels=0.8, nearest_fraction=0.5
)
# What these change beside `augment`, as Config has it, for presets on top of others.
NOT_ELASTIC = dict(affine_shift=2.0, elastic_pixels=1.0, nearest_fraction=0.0)
_TINY = dict(
    ELASTIC,
    optimizer="soap",
    learning_rate=4e-2,
    affine_strength=0.3,
    elastic_pixels=0.3,
)
_DIRECTIONAL = dict(
    ELASTIC,
    batch_size=128,
    learning_rate=4e-3,
    schedule="onecycle",
    clip_norm=1.0,
    dropout=0.0,
)
_RECURRENT = dict(
    _DIRECTIONAL,
    epochs=12,
    units=128,
    layers=1,
    bidirectional=False,
    sequence="rows",
    remat_steps=0,
)
_LINEAR_RECURRENT = dict(
    _RECURRENT, epochs=10, units=64, layers=2, pool=1, readout="mean"
)

# Each to end within three minutes on two CPU cores; chosen on the validation part and
# by cross-validation.
PRESETS: dict[str, dict[str, Any]] = {
    "linear": dict(epochs=12, batch_size=128, learning_rate=2e-3, schedule="cosine"),
    "mlp": dict(
        ELASTIC,
        epochs=30,
        batch_size=64,
        learning_rate=1e-3,
        schedule="cosine",
        affine_shift=0.5,
        hidden_sizes=(512, 256),
        layer_norm=False,
        dropout=0.1,
    ),
    "cnn": dict(
        ELASTIC,
        epochs=12,
        batch_size=128,
        learning_rate=8e-3,
        schedule="onecycle",
        features=(32, 64),
        blocks=0,
        batch_norm=False,
        dropout=0.25,
    ),
    "lenet5": dict(
        ELASTIC,
        epochs=24,
        batch_size=128,
        learning_rate=2e-3,
        schedule="onecycle",
        affine_shift=0.5,
    ),
    "resnet": dict(
        epochs=6,
        batch_size=128,
        learning_rate=1e-2,
        schedule="onecycle",
        clip_norm=1.0,
        augment="shift",
        features=(32, 64),
        blocks=1,
        batch_norm=False,
        dropout=0.0,
    ),
    "rnn": dict(_RECURRENT, epochs=40, learning_rate=2e-3, affine_shift=0.5),
    "lstm": dict(_RECURRENT),
    "gru": dict(_RECURRENT),
    "lru": dict(_LINEAR_RECURRENT, min_decay=0.5),
    "mingru": dict(_LINEAR_RECURRENT),
    "minlstm": dict(_LINEAR_RECURRENT),
    "fourway": dict(_DIRECTIONAL, epochs=8, units=96),
    "renet": dict(
        _DIRECTIONAL | NOT_ELASTIC, augment="shift", epochs=2, units=32, layers=2
    ),
    "tiny": dict(_TINY, epochs=60, batch_size=128, schedule="onecycle"),
}

# Chosen on the validation part of MNIST for 99% on the test set at the last epoch, in
# the least time from the start of the process. Two epochs of scikit-learn's digits are
# 38 steps, so there is none for small data sets.
FAST_PRESETS: dict[str, dict[str, Any]] = {
    "cnn": dict(
        NOT_ELASTIC,
        epochs=2,
        batch_size=64,
        learning_rate=1.2e-2,
        label_smoothing=0.1,
        augment="none",
        dropout=0.0,
    ),
}

# For the most accurate of each model within an hour on one CPU core, on all 60,000
# images. docs/selection.md says what of it cross-validation has chosen.
_BEST = dict(
    ELASTIC,
    optimizer="adamw",
    weight_decay=0.02,
    clip_norm=1.0,
    schedule="warmup_cosine",
    ema_decay=0.999,
    validation_fraction=0.0,
)
_BEST_RECURRENT = dict(
    _BEST,
    nearest_fraction=0.0,
    epochs=60,
    learning_rate=4e-3,
    units=256,
    dropout=0.1,
)
BEST_PRESETS: dict[str, dict[str, Any]] = {
    "linear": dict(epochs=60, learning_rate=1e-3, validation_fraction=0.0),
    "mlp": dict(
        _BEST,
        epochs=150,
        batch_size=256,
        learning_rate=1e-3,
        affine_shift=0.5,
        hidden_sizes=(1500, 1000, 500),
        dropout=0.1,
    ),
    "cnn": dict(
        _BEST,
        epochs=75,
        learning_rate=4e-3,
        features=(48, 96),
        blocks=1,
        batch_norm=True,
        dropout=0.5,
    ),
    "lenet5": dict(
        _BEST,
        epochs=150,
        learning_rate=3e-3,
        affine_shift=0.5,
    ),
    "resnet": dict(
        _BEST, epochs=50, learning_rate=4e-3, batch_norm=True, nearest_fraction=0.0
    ),
    "rnn": dict(_BEST_RECURRENT, epochs=100, learning_rate=1e-3, affine_shift=0.5),
    "lstm": dict(_BEST_RECURRENT),
    "gru": dict(_BEST_RECURRENT),
    "fourway": dict(_BEST_RECURRENT, units=128),
    "renet": dict(_BEST_RECURRENT, epochs=30, units=48),
    "tiny": dict(PRESETS["tiny"], validation_fraction=0.0),
}

LARGE_DATA_PRESETS = {"fast": FAST_PRESETS, "best": BEST_PRESETS}

# scikit-learn's digits have 1,400 training images, MNIST has 60,000: an epoch is a
# fortieth of the steps. So a run needs more epochs, smaller batches and stronger
# augmentation. One's own images, which are few as a rule, get the same.
_DIGITS = dict(NOT_ELASTIC, batch_size=32, augment="affine")
_DIGITS_RECURRENT = dict(_DIGITS, epochs=100, learning_rate=2e-3)
DIGITS_PRESETS: dict[str, dict[str, Any]] = {
    "linear": dict(epochs=100, batch_size=32, learning_rate=5e-3),
    "mlp": dict(_DIGITS, epochs=100, dropout=0.2),
    "cnn": dict(_DIGITS, epochs=60, learning_rate=3e-3),
    "lenet5": dict(_DIGITS, epochs=80),
    "resnet": dict(_DIGITS, epochs=40, learning_rate=3e-3),
    "rnn": dict(_DIGITS_RECURRENT, epochs=80),
    "lstm": _DIGITS_RECURRENT,
    "gru": _DIGITS_RECURRENT,
    "lru": dict(_DIGITS_RECURRENT, epochs=60),
    "mingru": dict(_DIGITS_RECURRENT, epochs=60),
    "minlstm": dict(_DIGITS_RECURRENT, epochs=60),
    "fourway": dict(_DIGITS_RECURRENT, epochs=60),
    "renet": dict(_DIGITS_RECURRENT, epochs=40),
    "tiny": dict(
        NOT_ELASTIC,
        epochs=100,
        batch_size=32,
        optimizer="adam",
        learning_rate=1e-2,
        augment="shift",
        affine_strength=1.0,
    ),
}
