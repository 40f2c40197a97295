"""The studies' charts."""

import io

import matplotlib.text
import numpy as np
import pytest
from PIL import Image

from experiments.accuracy.search import chart as search_chart
from experiments.accuracy.search.space import Range
from experiments.common import charts, columns, prediction_charts
from mnist_jax import evaluation, formats
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


def test_one_seed_shows_no_deviation(drawn):
    row = {"model": "mlp", "test_accuracy": 0.98, "std": None, "num_params": 7}
    charts.results([row], "mnist")
    assert "98.00" in texts(drawn[0])
    assert columns.with_spread(row) == "98.00%"
    assert columns.with_spread(row | {"std": 0.001}) == "98.00% ± 0.10"


def test_pareto_joins_the_models_that_none_beats(drawn):
    charts.pareto(ROWS, "mnist")
    parameters, seconds = drawn[0].axes
    front = [axis.lines[-1].get_xdata().tolist() for axis in (parameters, seconds)]
    assert front == [[7_850, 101_770, 225_034, 1_000_000], [4.0, 12.4, 100.0]]


def test_pareto_of_one_model_and_seed_has_its_point_in_a_grid(drawn):
    row = make_row("linear", [0.87, 0.87], 650, 0.1) | {"test_accuracies": [0.87]}
    charts.pareto([row], "t")
    for axis in drawn[0].axes:
        point = axis.lines[0].get_xydata()[0]
        assert axis.viewLim.contains(*point)
        for ticks, limits in (
            (axis.get_xticks(), axis.get_xlim()), (axis.get_yticks(), axis.get_ylim()),
        ):  # fmt: skip
            assert sum(limits[0] <= x <= limits[1] for x in ticks) >= 3


def test_curves_of_one_epoch_have_whole_epochs_below(drawn):
    scores = {"train_loss": 0.5, "validation_loss": 0.6, "validation_accuracy": 0.9}
    charts.curves({"gru": [[scores]]}, "t")
    for axis in drawn[0].axes:
        assert axis.get_xticks().tolist() == [0, 1, 2]
        assert axis.lines[0].get_marker() == "o"


def test_legends_stand_below_the_panels(drawn):
    row = {"notebook": "a", "name": "x", "test_accuracies": [0.9], "at_least": 0.9}
    charts.claims([row], "t")
    charts.lines({"mlp": ([1, 2], [3, 4])}, ("x", "y"), "t")
    for figure in drawn:
        [legend], axis = figure.legends, figure.axes[0]
        assert legend.get_window_extent().y1 <= axis.get_window_extent().y0


def test_a_search_on_a_logarithmic_scale_has_plain_ticks(drawn):
    trials = [
        {"settings": {"learning_rate": rate}, "scores": [{"validation_accuracy": 0.9}]}
        for rate in (2e-4, 5e-2)
    ]
    search_chart.draw(trials, {"learning_rate": Range(1e-4, 1e-1)}, "t")
    assert "0.001" in texts(drawn[0])
    assert not any("$" in text for text in texts(drawn[0]))


def test_one_is_no_plural():
    counts = [formats.counted(number, "trial") for number in (0, 1, 2, 1200)]
    assert counts == ["0 trials", "1 trial", "2 trials", "1,200 trials"]


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


def test_curves_reach_to_the_last_epoch_of_the_longest_run(drawn):
    scores = {"train_loss": 0.5, "validation_loss": 0.6, "validation_accuracy": 0.9}
    charts.curves({"mlp": [[scores] * 30], "gru": [[scores] * 12]}, "t")
    for axis in drawn[0].axes:
        assert axis.get_xlim()[1] >= 30


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
    bins = evaluation.reliability(probabilities, RNG.integers(0, 26, 200))
    for png in (
        prediction_charts.per_class({"mlp": RNG.random(26)}, LETTERS, "t"),
        prediction_charts.confusions({"mlp": matrix}, LETTERS, "t"),
        prediction_charts.reliability({"mlp": bins}, "t"),
        charts.lines({"mlp": ([1, 2], [3, 4])}, ("x", "y"), "t", xscale="log"),
    ):
        with Image.open(io.BytesIO(png)) as picture:
            assert np.asarray(picture.convert("L")).std() > 5
