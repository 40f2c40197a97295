"""The studies' charts."""

import io

import matplotlib.text
import numpy as np
import pytest
from PIL import Image

from experiments.common import charts, prediction_charts
from mnist_jax import metrics
from mnist_jax.plots import style

LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
RNG = np.random.default_rng(0)


def make_row(model, accuracies, num_params, seconds):
    return {
        "model": model,
        "test_accuracy": np.mean(accuracies),
        "std": np.std(accuracies, ddof=1),
        "test_accuracies": accuracies,
        "num_params": num_params,
        "train_seconds": seconds,
    }


ROWS = [
    make_row("linear", [0.92, 0.93], 7_850, 4.0),
    make_row("cnn", [0.995, 0.996], 225_034, 240.0),
    make_row("perfect", [1.0, 1.0], 1_000_000, 100.0),
    make_row("mlp", [0.98, 0.98], 101_770, 12.4),
]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that charts have turned into PNG files, as they were."""
    found = []
    to_png = style.to_png

    def keep(figure):
        found.append(figure)
        return to_png(figure)

    monkeypatch.setattr(style, "to_png", keep)
    return found


def texts(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


def test_results_sort_by_mean_and_show_the_deviation(drawn):
    charts.results(ROWS, "mnist")
    axis, table = drawn[0].axes
    names = [text.get_text() for text in axis.get_yticklabels()]
    assert names == ["perfect", "cnn", "mlp", "linear"]
    assert axis.get_xscale() == "log"
    deviation, mean = axis.lines[2:4]  # of the second row
    std = 0.1 / 2**0.5  # of 0.5 and 0.4
    np.testing.assert_allclose(deviation.get_xdata(), [0.45 - std, 0.45 + std])
    np.testing.assert_allclose(mean.get_xdata(), 0.45)
    assert {"99.55 ± 0.07", "225,034"} <= set(texts(drawn[0]))


def test_pareto_joins_the_models_that_none_beats(drawn):
    charts.pareto(ROWS, "mnist")
    parameters, seconds = drawn[0].axes
    front = [axis.lines[-1].get_xdata().tolist() for axis in (parameters, seconds)]
    assert front == [[7_850, 101_770, 225_034, 1_000_000], [4.0, 12.4, 100.0]]


def test_curves_show_the_mean_over_seeds_and_a_band(drawn):
    runs = [
        [
            {"train_loss": x, "validation_loss": 2 * x, "validation_accuracy": 1 - x}
            for x in losses
        ]
        for losses in ((0.5, 0.2), (0.3, 0.1))
    ]
    charts.curves({"gru": runs, "mlp": runs[:1]}, "t")
    loss, _, error = drawn[0].axes
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [0.4, 0.15])
    np.testing.assert_allclose(error.lines[0].get_ydata(), [40, 15])
    assert len(loss.collections) == 1  # one seed has no band


def test_bars_show_each_value_and_the_limits(drawn):
    series = {"mnist_jax": [2000, 90], "PyTorch": [1000, 30]}
    charts.bars(series, ["mlp", "cnn"], "images per second", "t", ("limit", [9e3, 95]))
    axis = drawn[0].axes[0]
    assert [bar.get_height() for bar in axis.patches] == [2000, 90, 1000, 30]
    assert axis.get_ylim()[0] < 30 and axis.get_ylim()[1] > 9e3
    assert {"2,000 ", "30 ", "mlp", "limit"} <= set(texts(drawn[0]))


def test_claims_stand_beside_every_seed(drawn):
    rows = [
        {"notebook": "a", "name": "x", "test_accuracies": [0.98, 0.9], "at_least": 0.9},
        {"notebook": "b", "name": "y", "test_accuracies": [0.97], "at_least": None},
    ]
    charts.claims(rows, "t")
    seeds, claim, other, _ = drawn[0].axes[0].lines
    np.testing.assert_allclose(seeds.get_xdata(), [2, 10])
    np.testing.assert_allclose(claim.get_xdata(), 10)
    assert seeds.get_color() != other.get_color()


def test_wrong_images_name_predictions_by_frequency(drawn):
    images = RNG.integers(0, 256, (2, 20, 24), np.uint8)
    predictions = np.array([[1, 3], [2, 3], [2, 3]])
    for names in (LETTERS, [f"class {x}" for x in LETTERS]):
        prediction_charts.wrong_images(images, np.array([0, 4]), predictions, names, "")
    assert {"A → C/B", "E → D"} <= set(texts(drawn[0]))
    assert {"class A →\nclass C\nclass B"} <= set(texts(drawn[1]))
    empty = np.zeros((3, 0), int)
    prediction_charts.wrong_images(images[:0], empty[0], empty, LETTERS, "t")
    assert "No image is wrong in all of them." in texts(drawn[2])


def test_every_chart_of_predictions_takes_26_classes():
    matrix = RNG.integers(0, 9, (26, 26))
    probabilities = RNG.dirichlet(np.ones(26), 200)
    bins = metrics.reliability(probabilities, RNG.integers(0, 26, 200))
    for png in (
        prediction_charts.per_class({"mlp": RNG.random(26)}, LETTERS, "t"),
        prediction_charts.confusions({"mlp": matrix}, LETTERS, "t"),
        prediction_charts.reliability({"mlp": bins}, "t"),
        charts.lines({"mlp": ([1, 2], [3, 4])}, ("x", "y"), "t", xscale="log"),
    ):
        with Image.open(io.BytesIO(png)) as picture:
            assert np.asarray(picture.convert("L")).std() > 5
