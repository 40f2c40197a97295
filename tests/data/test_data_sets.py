"""The data sets themselves, and the validation part."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from small_data import GENEROUS_SECONDS, run_python

from mnist_jax import data


def test_digits_are_the_same_everywhere_and_keep_shape_and_label(data_dir):
    """Averaged back to 8x8 an image is close to its original, label included."""
    import sklearn.datasets

    dataset = data.load("digits")
    # The fixture sets TFDS_DATA_DIR.
    assert (data_dir / "mnist_jax_digits" / "1.0.0" / "dataset_info.json").exists()
    expected = "d072f28b2d9f3709d5ed5bef8e48f4d7c73a41f2298831db1cd525b7e30eecbe"
    assert dataset.sha256 == expected
    assert dataset.train_images.shape == (1400, 28, 28, 1)
    assert dataset.test_images.shape == (397, 28, 28, 1)
    assert dataset.provenance.endswith("SHA-256 verified")

    original = sklearn.datasets.load_digits()
    box = dataset.test_images[:, 4:24, 4:24, 0].astype(float)
    halves = box.repeat(2, 1).repeat(2, 2).reshape(-1, 8, 5, 8, 5).mean((2, 4))
    distances = halves.reshape(-1, 1, 64) * (16 / 255) - original.data
    nearest = np.square(distances).sum(-1).argmin(1)
    assert len(set(nearest)) == 397
    np.testing.assert_array_equal(original.target[nearest], dataset.test_labels)


NO_TENSORFLOW = """
import sys
from mnist_jax import data
assert "tensorflow_datasets" not in sys.modules and "sklearn" not in sys.modules
assert data.load("digits", sys.argv[1]).name == "digits"
assert "tensorflow_datasets" in sys.modules
assert "tensorflow" not in sys.modules
"""


def test_tensorflow_is_not_imported_and_nothing_is_printed(empty_dir):
    process = run_python(NO_TENSORFLOW, empty_dir)
    assert process.communicate(timeout=GENEROUS_SECONDS) == ("", "")
    assert process.returncode == 0


@hypothesis.given(
    labels=st.lists(st.integers(0, 9), max_size=200),
    fraction=st.floats(0, 0.99),
    seed=st.integers(0, 2**32),
)
@hypothesis.settings(deadline=None)
def test_validation_split_is_proportional_disjoint_and_covering(labels, fraction, seed):
    labels = np.array(labels, int)
    train, validation = data.split_validation(labels, fraction, seed)
    assert len(validation) == round(fraction * len(labels))
    np.testing.assert_array_equal(
        np.sort(np.concatenate([train, validation])), np.arange(len(labels))
    )
    sizes = np.bincount(labels, minlength=10)
    taken = np.bincount(labels[validation], minlength=10)
    assert np.all(np.abs(taken - fraction * sizes) < 1)
    again = data.split_validation(labels, fraction, seed)
    np.testing.assert_array_equal(again[0], train)


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, float("nan")])
def test_validation_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        data.split_validation(np.arange(10), fraction, seed=0)


def test_mnist_is_the_published_one(mnist_raw_dir, data_dir):
    dataset = data.load("mnist", data_dir, mnist_raw_dir)
    assert dataset.train_images.shape == (60000, 28, 28, 1)
    assert dataset.test_images.shape == (10000, 28, 28, 1)
    assert dataset.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert dataset.test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    expected = "465499de1d5be89f22372774b5eb2d232ebd6289cbd0285d29e4414e466a68d8"
    assert dataset.sha256 == expected
