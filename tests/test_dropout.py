import itertools

import jax
import jax.numpy as jnp
import numpy as np

from mnist_jax import train_step
from mnist_jax.models.layers import drop

KEYS = jax.random.split(jax.random.key(7), 4)

# Compiled as a whole: one by one its operations take seconds.
compiled_drop = jax.jit(drop, static_argnames=("rate", "layer", "axis"))


def test_dropout_drops_the_share_and_keeps_the_mean():
    x = jnp.ones((4, 50_000))
    dropped = np.asarray(compiled_drop(x, 0.3, KEYS, 0))
    assert set(np.unique(dropped)) == {np.float32(0), np.float32(1 / 0.7)}
    # Five standard deviations of a binomial share over 200,000 draws: 0.005.
    assert abs((dropped == 0).mean() - 0.3) < 0.005
    np.testing.assert_array_equal(compiled_drop(x, 0.3, None, 0), x)
    np.testing.assert_array_equal(compiled_drop(x, 0.0, KEYS, 0), x)


def test_dropout_of_an_image_depends_on_its_own_key_alone():
    x = jnp.ones((4, 100))
    whole = compiled_drop(x, 0.5, KEYS, 1)
    np.testing.assert_array_equal(whole[2:], compiled_drop(x[2:], 0.5, KEYS[2:], 1))
    assert not np.array_equal(whole, compiled_drop(x, 0.5, KEYS, 2)), "layers differ"
    # Time-major: the images are on axis 1.
    sequence = compiled_drop(jnp.ones((3, 4, 100)), 0.5, KEYS, 1, axis=1)
    part = compiled_drop(jnp.ones((3, 2, 100)), 0.5, KEYS[:2], 1, axis=1)
    np.testing.assert_array_equal(sequence[:, :2], part)


def test_what_dropout_drops_shows_no_pattern():
    """Nothing but chance between images, units, steps and layers."""
    positions = jnp.arange(256)
    steps = [
        train_step.image_keys(np.uint32(0), np.int32(i), positions) for i in (0, 1)
    ]
    ones = jnp.ones((256, 2048))
    masks = [compiled_drop(ones, 0.5, k, layer) for k in steps for layer in (0, 1)]
    signs = np.where(np.array(masks) == 0, -1.0, 1.0)
    # Six standard deviations of a mean of so many independent signs.
    for axis in (1, 2):
        limit = 6 / np.sqrt(signs.shape[axis])
        assert np.abs(signs.mean(axis)).max() <= limit
    for lag in (1, 2, 3, 32, 128):
        for axis in (1, 2):
            products = signs * np.roll(signs, lag, axis)
            assert abs(products.mean()) < 6 / np.sqrt(signs.size)
    for a, b in itertools.combinations(signs, 2):
        assert abs((a * b).mean()) < 6 / np.sqrt(a.size)
