import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from mnist_jax import augment, batching
from mnist_jax.config import make_config


def make_images(num=6):
    """Images with a margin of 8, so that no transform pushes a stroke out."""
    images = np.zeros((num, 28, 28, 1), np.float32)
    inner = np.random.default_rng(0).uniform(size=(num, 12, 12, 1))
    images[:, 8:20, 8:20] = scipy.ndimage.gaussian_filter(inner, (0, 2, 2, 0))
    return np.round(255 * images) / np.float32(255)


def run(transform, *arrays):
    """Compiled, with the module's constants as they are now."""
    return jax.jit(lambda *arrays: transform(*arrays))(*arrays)


KEYS = jax.random.split(jax.random.key(0), 6)


def test_none_changes_nothing():
    images = make_images()
    np.testing.assert_array_equal(augment.none(KEYS, images), images)


def test_shift_moves_by_whole_pixels_within_range():
    images = make_images()
    moved = np.asarray(augment.shift(KEYS, images))
    found = set()
    for before, after in zip(images, moved, strict=True):
        reach = range(-augment.MAX_SHIFT, augment.MAX_SHIFT + 1)
        matches = [
            (y, x)
            for y in reach
            for x in reach
            if np.array_equal(np.roll(before, (y, x), (0, 1)), after)
        ]
        assert len(matches) == 1
        found.add(matches[0])
    assert len(found) > 1


def test_shift_reaches_every_offset_and_fills_with_zero():
    images = jnp.ones((400, 28, 28, 1))
    keys = jax.random.split(jax.random.key(1), 400)
    sums = np.asarray(augment.shift(keys, images)).sum((1, 2, 3))
    expected = {
        (28 - abs(y)) * (28 - abs(x)) for y in range(-2, 3) for x in range(-2, 3)
    }
    assert set(sums.astype(int)) == expected


def test_accelerators_shift_to_the_same_bits(on_accelerators):
    images = make_images()
    elsewhere = run(augment.shift, KEYS, images)
    cut = jax.vmap(
        lambda key, image: jax.lax.dynamic_slice(
            jnp.pad(image, ((2, 2), (2, 2))),
            jax.random.randint(key, (2,), 0, 5),
            image.shape,
        )
    )
    np.testing.assert_array_equal(elsewhere[..., 0], cut(KEYS, images[..., 0]))


def test_affine_with_all_ranges_zero_is_identity(monkeypatch):
    for name in ("MAX_ROTATION", "MAX_SCALING", "MAX_SHEAR"):
        monkeypatch.setattr(augment, name, 0)
    images = make_images()
    got = run(lambda keys, x: augment.affine(keys, x, 1.0, 0.0), KEYS, images)
    np.testing.assert_allclose(got, images, atol=1e-5)


def test_affine_equals_scipy_with_the_same_map(monkeypatch):
    for name in ("MAX_SCALING", "MAX_SHEAR"):
        monkeypatch.setattr(augment, name, 0)
    images = make_images()
    got = run(lambda keys, x: augment.affine(keys, x, 1.0, 0.0), KEYS, images)
    for key, image, turned in zip(KEYS, images[..., 0], got[..., 0], strict=True):
        angle = augment.MAX_ROTATION * jax.random.uniform(key, (6,), minval=-1.0)[0]
        cos, sin = np.cos(angle), np.sin(angle)
        matrix = np.array([[cos, -sin], [sin, cos]])
        centre = np.array([13.5, 13.5])
        expected = scipy.ndimage.affine_transform(
            image, matrix, centre - matrix @ centre, order=1, mode="constant"
        )
        np.testing.assert_allclose(turned, expected, atol=1e-4)


def test_affine_keeps_range_and_most_ink():
    images = make_images()
    got = np.asarray(run(augment.affine, KEYS, images))
    assert got.min() >= 0 and got.max() <= images.max() + 1e-6
    ratio = got.sum((1, 2, 3)) / images.sum((1, 2, 3))
    # Scaling by 1.1 in both directions changes the area by a fifth at most.
    assert np.all(np.abs(np.log(ratio)) < 2 * np.log(1.12))
    assert not np.allclose(got, images, atol=0.01)


@pytest.mark.parametrize("name", augment.AUGMENTATIONS)
def test_an_image_is_changed_by_its_own_key_alone(name):
    images = make_images()
    whole = run(augment.AUGMENTATIONS[name], KEYS, images)
    part = run(augment.AUGMENTATIONS[name], KEYS[3:5], images[3:5])
    np.testing.assert_allclose(whole[3:5], part, atol=1e-6)
    again = run(augment.AUGMENTATIONS[name], KEYS, images)
    np.testing.assert_array_equal(whole, again)


@pytest.mark.parametrize("name", augment.AUGMENTATIONS)
def test_images_of_any_shape_keep_it(name):
    images = np.pad(make_images(), ((0, 0), (0, 0), (3, 0), (0, 0)))
    got = run(augment.AUGMENTATIONS[name], KEYS, images)
    assert got.shape == (6, 28, 31, 1) and got.dtype == jnp.float32


def test_elastic_without_displacements_is_affine():
    images = make_images()
    got = run(lambda keys, x: augment.elastic(keys, x, 1.5, 1.0, 0.0), KEYS, images)
    expected = run(lambda keys, x: augment.affine(keys, x, 1.5, 1.0), KEYS, images)
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("nearest", (0.0, 1.0))
def test_elastic_equals_scipy_with_the_same_map(nearest):
    images, pixels = make_images(), 1.5
    settings = (0.0, 0.0, pixels, nearest)
    got = run(lambda keys, x: augment.elastic(keys, x, *settings), KEYS, images)
    field_keys = jax.vmap(lambda key: jax.random.fold_in(key, 1))(KEYS)
    fields = pixels * np.asarray(augment._smooth_fields(field_keys, (28, 28)))
    for field, image, bent in zip(fields, images[..., 0], got[..., 0], strict=True):
        expected = scipy.ndimage.map_coordinates(
            image, np.indices((28, 28)) + field, order=1 - int(nearest), mode="constant"
        )
        np.testing.assert_allclose(bent, expected, atol=1e-4)
        assert np.abs(bent - image).max() > 0.01


@pytest.mark.parametrize("transform", (augment.affine, augment.elastic))
def test_a_share_of_the_images_keeps_the_values_of_pixels(transform):
    keys = jax.random.split(jax.random.key(2), 1000)
    # Black and white: what is interpolated has values between.
    images = np.zeros((1000, 28, 28, 1), np.float32)
    images[:, 12:16, 12:16] = 1
    bilinear, quarter, nearest = (
        np.asarray(run(functools.partial(transform, nearest=share), keys, images))
        for share in (0.0, 0.25, 1.0)
    )
    sharp = np.isin(quarter, (0, 1)).all((1, 2, 3))
    assert 0.2 < sharp.mean() < 0.3
    np.testing.assert_allclose(quarter[sharp], nearest[sharp], atol=1e-6)
    np.testing.assert_allclose(quarter[~sharp], bilinear[~sharp], atol=1e-6)


def test_fields_are_those_of_white_noise_under_a_gaussian():
    keys = jax.random.split(jax.random.key(3), 4000)
    fields = np.asarray(augment._smooth_fields(keys, (28, 28)))
    assert fields.shape == (4000, 2, 28, 28)
    np.testing.assert_allclose(fields.mean(0), 0, atol=0.08)
    np.testing.assert_allclose(fields.std(0), 1, atol=0.06)
    assert np.abs((fields[:, 0] * fields[:, 1]).mean()) < 0.02
    # A Gaussian of 4 pixels makes correlations exp(-d^2 / (4 * 4^2)).
    for distance in (2, 4, 8, 16):
        found = (fields[..., 2, 6] * fields[..., 2, 6 + distance]).mean()
        assert found == pytest.approx(np.exp(-(distance**2) / 64), abs=0.05)


def test_strength_scales_what_affine_does():
    images = make_images()
    moved = [
        np.abs(augment.affine(KEYS, images, strength, 0.0) - images)
        for strength in (0.0, 0.5, 1.0, 2.0)
    ]
    assert moved[0].max() < 1e-5
    assert moved[1].sum() < moved[2].sum() < moved[3].sum()


def test_augmentations_are_made_with_their_strengths():
    images = make_images()
    for name, own in (("affine", (1.5, 0.5, 1.0)), ("elastic", (1.5, 0.5, 2.0, 1.0))):
        made = augment.make_augmentation(name, 1.5, 0.5, 2.0, 1.0)
        expected = augment.AUGMENTATIONS[name](KEYS, images, *own)
        np.testing.assert_allclose(made(KEYS, images), expected, atol=1e-6)
    assert augment.make_augmentation("none")(KEYS, images) is images


def test_each_setting_of_a_run_reaches_its_argument():
    """Of four numbers in a row no type tells which is which."""
    settings = {
        "affine_strength": 1.5,
        "affine_shift": 0.75,
        "elastic_pixels": 2.5,
        "nearest_fraction": 0.5,
    }
    config = make_config("mlp", "digits", augment="elastic", **settings)
    of_run, expected = (
        run(transform, KEYS, make_images())
        for transform in (
            batching.make_augmentation(config),
            augment.make_augmentation("elastic", **settings),
        )
    )
    np.testing.assert_array_equal(of_run, expected)
