import contextlib
import io
import math

import numpy as np
import pytest

from mnist_jax import evaluation, formats, metrics, progress

LOGITS = np.array([[0.0, 0.0], [0.0, math.log(3.0)]], np.float32)
LABELS = np.array([0, 1], np.int32)
# By hand: probabilities are (1/2, 1/2) and (1/4, 3/4).
LOSSES = [math.log(2.0), -math.log(0.75)]


def test_sparse_cross_entropy_by_hand():
    got = metrics.sparse_cross_entropy(LOGITS, LABELS)
    np.testing.assert_allclose(got, LOSSES, rtol=1e-6)


def test_one_hot_cross_entropy_equals_sparse():
    got = metrics.one_hot_cross_entropy(LOGITS, np.eye(2, dtype=np.float32)[LABELS])
    np.testing.assert_allclose(got, LOSSES, rtol=1e-6)


@pytest.mark.parametrize(
    "loss, text",
    [(0.7106, "0.7106"), (123.4567, "123.4567"), (1234.5, "1.234e+03")]
    + [(3.3e37, "3.300e+37"), (-2e9, "-2.000e+09"), (math.nan, "nan")],
)
def test_losses_are_told_in_bounded_width(loss, text):
    assert formats.format_loss(loss) == text
    line = {
        "epoch": 1, "train_loss": loss, "train_accuracy": 0.1, "validation_loss": loss,
        "validation_accuracy": 0.2, "images_per_second": 9.0,
    }  # fmt: skip
    said = io.StringIO()
    with contextlib.redirect_stderr(said), progress.Progress(2, 9, 0) as bar:
        bar.end_epoch(line)
    assert said.getvalue().startswith(
        f"epoch 1/2  loss {text}  accuracy 10.00%  validation loss {text}  accuracy"
    )


def test_label_smoothing_by_hand():
    # Targets 0.1 smoothed over 2 classes: 0.95 and 0.05.
    first = math.log(2.0)
    second = -0.95 * math.log(0.75) - 0.05 * math.log(0.25)
    got = metrics.cross_entropy(LOGITS, LABELS, label_smoothing=0.1)
    np.testing.assert_allclose(got, (first + second) / 2, rtol=1e-6)
    plain = metrics.cross_entropy(LOGITS, LABELS)
    np.testing.assert_allclose(plain, sum(LOSSES) / 2, rtol=1e-6)


def test_accuracy_counts_correct_predictions():
    logits = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    assert metrics.accuracy(logits, np.array([0, 1, 1])) == np.float32(2 / 3)


def test_score_by_hand():
    scores = metrics.score(LOGITS, LABELS)
    assert scores["loss"] == pytest.approx(sum(LOSSES) / 2, rel=1e-6)
    assert scores["accuracy"] == 1.0  # argmax takes the first of two equal logits


def test_score_stays_finite_for_extreme_logits():
    scores = metrics.score(np.array([[1e4, -1e4]], np.float32), np.array([1]))
    assert scores == {"loss": 2e4, "accuracy": 0.0}


def test_softmax_rows_sum_to_one():
    got = evaluation.softmax(np.array([[0.0, math.log(3.0)], [1e4, 0.0]], np.float32))
    np.testing.assert_allclose(got, [[0.25, 0.75], [1, 0]], atol=1e-7)
    assert got.dtype == np.float32


def test_confusion_matrix_has_true_classes_in_rows():
    labels, predicted = np.array([0, 0, 2, 2, 2]), np.array([0, 2, 2, 2, 0])
    matrix = evaluation.confusion_matrix(predicted, labels, 3)
    np.testing.assert_array_equal(matrix, [[1, 0, 1], [0, 0, 0], [1, 0, 2]])
    assert evaluation.per_class_accuracy(matrix) == [0.5, None, 2 / 3]


def test_reliability_by_hand():
    probabilities = np.array(
        [[0.95, 0.05], [0.9, 0.1], [0.42, 0.58], [0.4, 0.6], [0.99, 0.01]]
    )
    labels = np.array([0, 1, 1, 0, 0])
    # Tenths: 0.58 and 0.6 in (0.5, 0.6], 0.9 in (0.8, 0.9], two in (0.9, 1].
    got = evaluation.reliability(probabilities, labels, num_bins=10)
    np.testing.assert_array_equal(got.count, [2, 1, 2])
    np.testing.assert_allclose(got.confidence, [0.59, 0.9, 0.97])
    np.testing.assert_allclose(got.accuracy, [0.5, 0, 1])
    assert got.error == pytest.approx((2 * 0.09 + 0.9 + 2 * 0.03) / 5)


def test_mcnemar_by_hand():
    first = np.array([True] * 5 + [False] * 1 + [True] * 10)
    second = np.array([False] * 5 + [True] * 1 + [True] * 10)
    # Five to one: two tails of the coin thrown six times, (1 + 6) / 64 each.
    assert evaluation.mcnemar(first, second) == pytest.approx(2 * 7 / 64)
    assert evaluation.mcnemar(second, first) == pytest.approx(2 * 7 / 64)
    assert evaluation.mcnemar(first, first) == 1.0
