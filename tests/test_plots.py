"""The figures of a run: drawn from its files alone, for any image shape and classes."""

import string
import sys
import warnings

import matplotlib.text
import numpy as np
import pytest
from PIL import Image

from mnist_jax import plots
from mnist_jax.plots import draw, figures, style
from mnist_jax.plots.select_examples import rank_mistakes
from mnist_jax.storage import records

FIGURES = {"samples", "curves", "confusion_matrix", "predictions", "mistakes"}
DIGITS = tuple("0123456789")
LONG_NAMES = ("T-shirt/top", "Ankle boot", "Sneaker") + DIGITS[3:]
LETTERS = tuple(string.ascii_uppercase)
CONFIG = {"model": "gru", "dataset": "mnist", "seed": 4}
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


def make_run(workdir, num_mistakes=40, names=DIGITS, images=IMAGES):
    """A finished run of 60 test images, the first of them wrong."""
    num_classes = len(names)
    labels = (np.arange(60) % num_classes).astype(np.int32)
    predicted = np.where(np.arange(60) < num_mistakes, labels + 1, labels) % num_classes
    probabilities = np.full((60, num_classes), 0.09 / (num_classes - 1), np.float32)
    probabilities[np.arange(60), predicted] = 0.91 - 0.001 * np.arange(60)
    matrix = np.zeros((num_classes, num_classes), int)
    np.add.at(matrix, (labels, predicted), 1)
    shown = plots.select_examples(probabilities, labels)
    records.write_config(workdir, CONFIG | {"a_setting_of_later": 1}, "00")
    records.write_metrics(workdir, make_epochs(3))
    result = dict.fromkeys(records.RESULT_KEYS, 0)
    result |= {"class_names": list(names), "confusion_matrix": matrix.tolist()}
    result |= {"per_class_accuracy": [0.0] * num_classes, "epochs": 3}
    records.write_result(workdir, result)
    records.write_predictions(
        workdir,
        records.Predictions(
            probabilities, labels, shown, images[shown], images[:40], labels[:40]
        ),
    )


def texts(figure):
    """Everything written in a figure."""
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


@pytest.mark.parametrize(
    "num_mistakes, names, shape",
    [(40, DIGITS, (28, 28)), (0, LONG_NAMES, (28, 28)), (40, LETTERS, (20, 24))],
    ids=["digits", "no mistakes", "letters"],
)
def test_a_finished_run_has_five_readable_figures(tmp_path, num_mistakes, names, shape):
    make_run(tmp_path, num_mistakes, names, IMAGES[:, : shape[0], : shape[1]])
    paths = plots.draw_all(tmp_path)
    assert {path.stem for path in paths} == FIGURES
    assert set((tmp_path / "figures").iterdir()) == set(paths)
    for path in paths:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("L"))
        assert min(pixels.shape) >= 300, "large enough to read"
        assert pixels.std() > 5, "not blank"


def test_an_unfinished_run_has_curves_alone(tmp_path):
    records.write_config(tmp_path, CONFIG, "00")
    records.write_metrics(tmp_path, make_epochs(1))
    assert [path.name for path in plots.draw_all(tmp_path)] == ["curves.png"]


@pytest.mark.parametrize(
    "config, num_epochs, message",
    [
        (None, 0, "holds no finished epoch"),
        (CONFIG, 0, "holds no finished epoch"),
        ({"model": "gru"}, 1, r"config.json is damaged \(dataset, seed missing\)"),
    ],
)
def test_nothing_to_draw_is_told_in_one_line(tmp_path, config, num_epochs, message):
    if config:
        records.write_config(tmp_path, config, "00")
    if num_epochs:
        records.write_metrics(tmp_path, make_epochs(num_epochs))
    with pytest.raises(records.RecordsError, match=message) as caught:
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


@pytest.mark.parametrize(
    "name, told",
    [
        ("config.json", "config.json is missing: restore"),
        ("metrics.jsonl", "metrics.jsonl is missing: .* repeat the training command"),
        ("predictions.npz", "predictions.npz is missing: .* repeat the training"),
    ],
)
def test_a_file_that_a_finished_run_lost_is_told(tmp_path, name, told):
    make_run(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(records.RecordsError, match=told) as caught:
        plots.draw_all(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "figures").exists()


def test_random_images_come_first_then_mistakes_by_confidence():
    labels = np.zeros(100, np.int32)
    probabilities = np.tile(np.float32([0.9, 0.1]), (100, 1))
    for index, confidence in ((70, 0.6), (80, 0.95), (90, 0.8)):
        probabilities[index] = [1 - confidence, confidence]
    assert rank_mistakes(probabilities, labels).tolist() == [80, 90, 70]
    shown = plots.select_examples(probabilities, labels)
    random, rest = shown[:12], shown[12:].tolist()
    assert len(set(shown.tolist())) == len(shown)
    assert rest == [index for index in (80, 90, 70) if index not in random]
    other = plots.select_examples(probabilities, labels, seed=1)
    assert not np.array_equal(random, other[:12])
    all_wrong = plots.select_examples(1 - probabilities, labels)
    assert 24 <= len(all_wrong) <= 12 + 24


def test_titles_name_model_and_data_set():
    title = draw.run_title(CONFIG | {"dataset": "fashion_mnist"})
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
    assert "t: 93.87% of 163 correct" in written


def test_a_wrong_prediction_is_marked_otherwise_than_by_colour():
    rows = np.full((2, 10), 0.05)
    rows[:, 3] = 0.55
    figure = figures.predictions(IMAGES[:2], np.array([3, 8]), rows, DIGITS, "t")
    written = texts(figure)
    assert "predicted 3\nactual 3  ✓" in written
    assert "predicted 3\nactual 8  ✗" in written
    assert written.count("55%") == 2


def test_of_many_classes_the_most_probable_and_the_true_one_have_bars():
    row = np.linspace(0.02, 0.05, 26)[None]  # Z most probable, A least
    figure = figures.predictions(IMAGES[:1], np.array([0]), row, LETTERS, "t")
    bars = [text for text in texts(figure) if text in LETTERS]
    assert bars == ["A", *"RSTUVWXYZ"]
    assert "the 10 most probable of 26 classes" in texts(figure)


def test_curves_leave_out_a_validation_that_is_not_there():
    with_it = figures.curves(make_epochs(3), "t").axes[0]
    without = figures.curves(make_epochs(3, validation=False), "t").axes[0]
    assert (len(with_it.lines), len(without.lines)) == (2, 1)
    np.testing.assert_allclose(with_it.lines[0].get_ydata(), [2, 1.8, 1.62])
    assert "training, last 1.6200" in texts(without.figure)


def test_no_legend_of_the_curves_hides_a_point():
    epochs = make_epochs(3)
    epochs[-1] |= {"train_loss": 1e30, "validation_loss": 1e31}
    figure = figures.curves(epochs, "t")
    style.to_png(figure)
    for axis in figure.axes:
        legend = axis.get_legend().get_window_extent()
        assert legend.y0 >= axis.get_window_extent().y1
        assert legend.x1 <= figure.bbox.x1
    assert "training, last 1.000e+30" in texts(figure)


@pytest.mark.parametrize("validation", [True, False])
def test_one_epoch_is_a_point_between_ticks_and_lines_of_a_grid(validation):
    figure = figures.curves(make_epochs(1, validation), "t")
    for axis in figure.axes:
        [point] = axis.lines[0].get_xydata()
        assert axis.viewLim.contains(*point) and axis.lines[0].get_marker() == "o"
        assert axis.get_xticks().tolist() == [0, 1, 2]
        shown = [y for y in axis.get_yticks() if axis.viewLim.contains(1, y)]
        assert len(shown) >= 3
        assert all(line.get_visible() for line in axis.get_ygridlines())


def test_every_further_metric_has_a_panel_with_the_epochs_that_have_it():
    epochs = make_epochs(4)
    del epochs[1]["train_loss"]
    for epoch, value in zip(epochs[1:], (0.3, None, 0.1), strict=True):
        epoch["validation_calibration_error"] = value
    loss, accuracy, further = figures.curves(epochs, "t").axes
    assert loss.lines[0].get_xdata().tolist() == [1, 3, 4]
    assert len(accuracy.lines[0].get_xdata()) == 4
    assert further.get_ylabel() == "calibration error"
    assert further.lines[0].get_xydata().tolist() == [[2, 0.3], [4, 0.1]]


@pytest.mark.parametrize("num", [1, 7])
def test_a_users_images_are_drawn_with_their_names(tmp_path, num):
    names = [f"photo{i}.png" for i in range(num)]
    rows = np.full((num, 10), 0.1)
    path = plots.draw_image_predictions(
        tmp_path / "x.png", names, IMAGES[:num, ..., None], rows, DIGITS, "t"
    )
    with Image.open(path) as picture:
        assert picture.size[0] >= 400
    written = texts(figures.predictions(IMAGES[:num], None, rows, DIGITS, "t", names))
    assert {f"{name}\npredicted 0" for name in names} <= set(written)


def test_of_many_images_of_a_user_the_first_are_drawn(monkeypatch):
    monkeypatch.setattr(draw, "_write", lambda path, figure: figure)
    images, rows = np.zeros((720, 28, 28, 1), np.uint8), np.full((720, 10), 0.1)
    names = [f"{i}.png" for i in range(720)]
    figure = plots.draw_image_predictions(None, names, images, rows, DIGITS, "t")
    assert figure.get_figheight() * 150 < 2**13  # pixels
    assert figure.get_suptitle() == "Predictions: t, the first 60 of 720 images"
    assert "59.png\npredicted 0" in texts(figure)
    assert plots.which_are_drawn(60) == ""


def test_a_figure_that_cannot_be_written_is_told_with_its_own_name(tmp_path):
    (tmp_path / "figures").write_text("mine")
    path = tmp_path / "figures/x.png"
    with pytest.raises(records.RecordsError) as caught:
        plots.draw_image_predictions(
            path, ["a"], IMAGES[:1, ..., None], np.full((1, 10), 0.1), DIGITS, "t"
        )
    assert str(caught.value).startswith(f"{path} cannot be written (")


@pytest.mark.parametrize("num_steps", [7, 56])
def test_a_reading_has_as_many_rows_as_the_image(tmp_path, monkeypatch, num_steps):
    """Fewer steps are repeated, and of more some are left out."""
    make_run(tmp_path)
    readings, drawn = [], {}
    with_maps = figures.with_maps

    def explain(images):
        saliency = RNG.uniform(size=images.shape[:3])
        readings.append(RNG.dirichlet(np.ones(10), (len(images), num_steps)))
        return saliency, readings[0]

    def draw_and_keep(images, maps, *others):
        drawn[others[-2]] = maps
        return with_maps(images, maps, *others)

    monkeypatch.setattr(figures, "with_maps", draw_and_keep)
    paths = plots.draw_explanation(tmp_path, explain)
    assert paths == [tmp_path / f"figures/{x}.png" for x in ("saliency", "reading")]
    with Image.open(paths[1]) as picture:
        pixels = np.asarray(picture.convert("L"))
    assert min(pixels.shape) >= 300 and pixels.std() > 5
    maps, [reading] = drawn["Reading an image: GRU on mnist, seed 4"], readings
    assert maps.shape == (len(reading), 28, 3 * 10)
    for row, step in ((0, 0), (-1, -1)):
        np.testing.assert_array_equal(maps[:, row, ::3], reading[:, step])
        np.testing.assert_array_equal(maps[:, row, 2::3], reading[:, step])


MATH = "$_^$"  # which TeX could not parse


def test_a_dollar_in_a_name_is_a_dollar():
    names, rows = [MATH, "$", "\\frac$x$"], np.full((3, 3), 1 / 3)
    labels = np.arange(3)
    for figure in (
        figures.samples(IMAGES[:3], labels, names, MATH),
        figures.confusion_matrix(np.eye(3, dtype=int), names, MATH),
        figures.predictions(IMAGES[:3], labels, rows, names, MATH, names),
        figures.mistakes(IMAGES[:3], labels, rows, 3, names, MATH),
    ):
        assert style.to_png(figure)
    axis = style.new_figure(4, 3, MATH).subplots()
    axis.plot([0, 1], [0, 1], label=MATH)
    axis.set_xlabel(MATH)
    axis.xaxis.set_major_formatter(lambda x, _: MATH)
    axis.legend()
    assert style.to_png(axis.figure)


def test_letters_that_the_font_lacks_are_told_once_for_a_figure(caplog):
    figure = style.new_figure(4, 3, "two 文字 and 文")
    figure.subplots().set_xlabel("\x01 字")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert style.to_png(figure)
        style.to_png(style.new_figure(4, 3, "ψηφίο"))
    [line] = [record.getMessage() for record in caplog.records]
    assert "'two 文字 and 文' shows boxes" in line and "DejaVu Sans" in line
    for letter in ("文", "字", "\\x01"):
        assert letter in line


def test_other_warnings_of_a_figure_are_shown():
    figure = style.new_figure(4, 3, "t")

    class Odd(matplotlib.text.Text):
        def draw(self, renderer):
            warnings.warn("odd", stacklevel=1)

    figure.add_artist(Odd())
    with pytest.warns(UserWarning, match="odd"):
        style.to_png(figure)


def test_many_series_have_distinct_styles():
    styles = {tuple(style.series_style(i).values()) for i in range(28)}
    assert len(styles) == 28


@pytest.mark.parametrize("low, high", [(0.52, 0.7), (0.4, 8), (3, 80), (1e3, 1e6)])
def test_logarithmic_axes_have_enough_plain_ticks(low, high):
    axis = style.new_figure(6, 4, "t").subplots()
    axis.set(xscale="log", xlim=(low, high))
    style.plain_log_ticks(axis.xaxis)
    shown = [x for x in axis.get_xticks() if low <= x <= high]
    assert 3 <= len(shown) <= 8
    assert not any("e" in style.plain_number(x) for x in shown)


@pytest.mark.parametrize("value", [0.1, 13.0, 1e6])
def test_a_logarithmic_axis_of_one_value_has_ticks_around_it(value):
    axis = style.new_figure(6, 4, "t").subplots()
    axis.set(yscale="log", ylim=(value, value * (1 + 1e-15)))
    style.plain_log_ticks(axis.yaxis)
    low, high = axis.get_ylim()
    assert low < 0.8 * value and high > 1.2 * value
    assert sum(low <= x <= high for x in axis.get_yticks()) >= 3


@pytest.mark.filterwarnings("error")
def test_one_point_on_a_logarithmic_axis_has_ticks_around_it():
    axis = style.new_figure(6, 4, "t").subplots()
    axis.set(xscale="log")
    axis.plot([275_004], [1])
    style.plain_log_ticks(axis.xaxis)
    low, high = axis.get_xlim()
    assert low < 0.8 * 275_004 and 1.2 * 275_004 < high < 2 * 275_004


def test_numbers_on_an_axis_are_short():
    texts = [style.plain_number(x) for x in (0.02, 1500, 12e6, 1e30)]
    assert texts == ["0.02", "1,500", "12,000,000", "1e+30"]


def test_pyplot_is_never_loaded():
    assert "matplotlib.pyplot" not in sys.modules
