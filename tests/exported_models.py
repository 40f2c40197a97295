"""Models that the tests of exports export, and what their logits are held to."""

import jax
import numpy as np

from mnist_jax import models, train_step

SHAPE = (28, 28, 1)
MODELS = {
    "linear": {},
    "mlp": {"hidden_sizes": (24, 16)},
    "cnn": {},
    "lenet5": {},
    "resnet": {},
    "rnn": {"units": 12},
    "lstm": {"units": 12},
    "gru": {"units": 12},
    "lstm 2 columns both": {
        "units": 6, "layers": 2, "bidirectional": True, "sequence": "columns",
    },
    "lru 2 both": {"units": 6, "layers": 2, "bidirectional": True},
    "mingru 2 pixels pooled": {
        "units": 4, "layers": 2, "sequence": "pixels", "pool": 4, "readout": "last",
        "remat_steps": 100,
    },
    "minlstm": {"units": 6, "layers": 1},
    "rnn 2 pixels": {"units": 4, "layers": 2, "sequence": "pixels"},
}  # fmt: skip


def make_images(count, shape=SHAPE):
    return np.random.default_rng(1).integers(0, 256, (count, *shape), np.uint8)


def make(case):
    """A model of `MODELS` and weights none of which is 0."""
    model = models.make_model(case.split()[0], 10, **MODELS[case])
    rng = np.random.default_rng(2)

    def draw(leaf):
        scale = 0.1 if leaf.ndim < 2 else 1 / np.sqrt(leaf.size / max(leaf.shape))
        return rng.normal(0, scale, leaf.shape).astype(np.float32)

    return model, jax.tree.map(draw, train_step.init_params_shapes(model, SHAPE))


def assert_close(logits, expected):
    assert logits.shape == expected.shape and logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())
