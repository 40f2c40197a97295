import sys

import numpy as np
import pytest
from PIL import Image

from mnist_jax import plots, records
from mnist_jax.config import make_config
from mnist_jax.plots import choice, draw, figures

FIGURES = {"samples", "curves", "confusion_matrix", "predictions", "mistakes"}
DIGITS = tuple("0123456789")
LONG_NAMES = ("T-shirt/top", "Ankle boot", "Sneaker") + DIGITS[3:]
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (60, 28, 28), np.uint8)


def make_epochs(num, validation=True):
    return [
        {
            "epoch": i + 1,
            "train_loss": 2.0 * 0.9**i,
            "train_accuracy": 1 - 0.8 * 0.9**i,
            "validation_loss": 2.1 * 0.9**i if validation else None,
            "validation_accuracy": 0.5 if validation else None,
            "learning_rate": 1e-3,
            "seconds": 1.0,
            "images_per_second": 1.0,
        }
        for i in range(num)
    ]


def make_run(workdir, num_mistakes=40, names=DIGITS):
    """A finished run of 60 test images, the first of them wrong."""
    labels = (np.arange(60) % 10).astype(np.int32)
    probabilities = np.full((60, 10), 0.01, np.float32)
    answers = np.where(np.arange(60) < num_mistakes, (labels + 1) % 10, labels)
    probabilities[np.arange(60), answers] = 0.91 - 0.001 * np.arange(60)
    matrix = np.zeros((10, 10), int)
    np.add.at(matrix, (labels, answers), 1)
    shown = plots.choose_shown(probabilities, labels)
    records.write_config(workdir, make_config("gru", "mnist", seed=4).to_dict())
    records.write_metrics(workdir, make_epochs(3))
    result = dict.fromkeys(records.RESULT_KEYS, 0)
    result |= {"class_names": list(names), "confusion_matrix": matrix.tolist()}
    records.write_result(workdir, result)
    records.write_predictions(
        workdir,
        records.Predictions(
            probabilities, labels, shown, IMAGES[shown], IMAGES[:40], labels[:40]
        ),
    )


def texts(figure):
    """Everything written in a figure."""
    import matplotlib.text

    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


@pytest.mark.parametrize("num_mistakes, names", [(40, DIGITS), (0, LONG_NAMES)])
def test_a_finished_run_has_five_readable_figures(tmp_path, num_mistakes, names):
    make_run(tmp_path, num_mistakes, names)
    paths = plots.draw_all(tmp_path)
    assert {path.stem for path in paths} == FIGURES
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        path.name for path in paths
    }
    for path in paths:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("L"))
        assert min(pixels.shape) >= 300, "large enough to read"
        assert pixels.std() > 5, "not blank"


def test_an_unfinished_run_has_curves_alone(tmp_path):
    records.write_config(tmp_path, {"model": "gru", "dataset": "mnist", "seed": 4})
    records.write_metrics(tmp_path, make_epochs(1))
    assert [path.name for path in plots.draw_all(tmp_path)] == ["curves.png"]


@pytest.mark.parametrize("with_config", [True, False])
def test_nothing_to_draw_is_told_in_one_line(tmp_path, with_config):
    if with_config:
        records.write_config(tmp_path, {"model": "gru", "dataset": "mnist", "seed": 4})
    with pytest.raises(records.RecordsError, match="holds no finished epoch") as caught:
        plots.draw_all(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "figures").exists()


def test_drawing_again_changes_no_record_and_gives_the_same_files(tmp_path):
    make_run(tmp_path)
    names = ("config.json", "metrics.jsonl", "result.json", "predictions.npz")
    before = [(tmp_path / name).read_bytes() for name in names]
    first = [path.read_bytes() for path in plots.draw_all(tmp_path)]
    second = [path.read_bytes() for path in plots.draw_all(tmp_path)]
    assert first == second
    assert before == [(tmp_path / name).read_bytes() for name in names]


def test_random_images_come_first_then_mistakes_by_confidence():
    labels = np.zeros(100, np.int32)
    probabilities = np.tile(np.float32([0.9, 0.1]), (100, 1))
    for row, confidence in ((70, 0.6), (80, 0.95), (90, 0.8)):
        probabilities[row] = [1 - confidence, confidence]
    assert choice.rank_mistakes(probabilities, labels).tolist() == [80, 90, 70]
    shown = plots.choose_shown(probabilities, labels)
    random, rest = shown[:12], shown[12:].tolist()
    assert len(set(shown.tolist())) == len(shown)
    assert rest == [row for row in (80, 90, 70) if row not in random]
    other = plots.choose_shown(probabilities, labels, seed=1)
    assert not np.array_equal(random, other[:12])


def test_no_more_mistakes_are_shown_than_fit():
    labels = np.zeros(100, np.int32)
    probabilities = np.tile(np.float32([0.1, 0.9]), (100, 1))
    assert len(plots.choose_shown(probabilities, labels)) <= 12 + 24


def test_titles_name_model_and_data_set():
    config = {"model": "gru", "dataset": "fashion_mnist", "seed": 4}
    title = draw.run_title(config)
    assert title == "GRU on fashion_mnist, seed 4"
    rows = np.full((2, 10), 0.1)
    labels = np.array([0, 1])
    for figure in (
        figures.samples(IMAGES[:5], labels[[0, 1, 0, 1, 0]], DIGITS, title),
        figures.curves(make_epochs(2), title),
        figures.confusion_matrix(np.eye(10, dtype=int), DIGITS, title),
        figures.predictions(IMAGES[:2], labels, rows, DIGITS, title),
        figures.mistakes(IMAGES[:2], labels, rows, 2, DIGITS, title),
        figures.mistakes(IMAGES[:0], labels[:0], rows[:0], 0, DIGITS, title),
    ):
        assert title in figure.get_suptitle()


def test_confusion_matrix_writes_counts_and_accuracies():
    matrix = np.diag([90] + [7] * 9)
    matrix[0, 3] = 10
    written = texts(figures.confusion_matrix(matrix, DIGITS, "t"))
    assert {"90", "10", "90.0%", "100.0%"} <= set(written)
    assert "t: 93.87% of 163 right" in written


def test_a_wrong_prediction_is_marked_otherwise_than_by_colour():
    rows = np.full((2, 10), 0.05)
    rows[:, 3] = 0.55
    figure = figures.predictions(IMAGES[:2], np.array([3, 8]), rows, DIGITS, "t")
    written = texts(figure)
    assert "predicted 3\nactual 3  ✓" in written
    assert "predicted 3\nactual 8  ✗" in written
    assert written.count("55%") == 2


def test_curves_leave_out_a_validation_that_is_not_there():
    with_it = figures.curves(make_epochs(3), "t").axes[0]
    without = figures.curves(make_epochs(3, validation=False), "t").axes[0]
    assert (len(with_it.lines), len(without.lines)) == (2, 1)
    np.testing.assert_allclose(with_it.lines[0].get_ydata(), [2, 1.8, 1.62])
    assert "training, last 1.6200" in texts(without.figure)


@pytest.mark.parametrize("num", [1, 2, 7])
def test_a_persons_images_are_drawn_with_their_names(tmp_path, num):
    names = [f"photo{i}.png" for i in range(num)]
    rows = np.full((num, 10), 0.1)
    path = plots.draw_image_predictions(
        tmp_path / "x.png", names, IMAGES[:num, ..., None], rows, DIGITS, "t"
    )
    with Image.open(path) as picture:
        assert picture.size[0] >= 400
    written = texts(figures.predictions(IMAGES[:num], None, rows, DIGITS, "t", names))
    assert {f"{name}\npredicted 0" for name in names} <= set(written)


def test_comparison_shows_error_and_time(tmp_path):
    rows = [
        {"model": "mlp", "test_accuracy": 0.98, "spread": 0.001, "train_seconds": 9},
        {"model": "gru", "test_accuracy": 0.99, "spread": 0.0, "train_seconds": 70},
    ]
    written = texts(figures.comparison(rows, "mnist"))
    assert {" 98.00% right", " 70 s", "mlp", "gru", "mnist"} <= set(written)
    assert plots.draw_comparison(tmp_path / "c.png", rows, "mnist").exists()


def test_pyplot_is_never_loaded():
    assert "matplotlib.pyplot" not in sys.modules
