"""The scaling study: its points, its tables and its own runs."""

import json

import numpy as np
import pytest

from experiments.speed import scaling
from experiments.speed.scaling_parts import measurement, points, report
from mnist_jax.errors import UserError


def said(point, microseconds, mebibytes):
    """What is measured of a point."""
    return {
        **point._asdict(),
        "seconds_per_image": microseconds * 1e-6,
        "memory_bytes": mebibytes * 2**20,
        "macs": 7840,
    }


def test_time_steps_are_pieces_of_the_image_in_reading_order():
    images = measurement.make_images(28, number=3)
    assert images.shape == (3, 28, 28, 1) and images.dtype == np.uint8
    pieces = measurement.make_images(196, number=3)
    assert pieces.shape == (3, 196, 4, 1)
    np.testing.assert_array_equal(pieces.ravel(), images.ravel())


def test_models_take_turns():
    planned = points.plan(points.AXES["units"], ["linear", "gru", "mlp"], 2)
    assert planned == [
        points.Point("gru", 128, 64, 28),
        points.Point("mlp", 128, 64, None),
        points.Point("gru", 128, 128, 28),
        points.Point("mlp", 128, 128, None),
    ]


def test_axes_share_their_middle():
    plans = points.make_plans(list(points.AXES), ["lstm", "cnn"], None)
    assert {x: len(own) for x, own in plans.items()} == {
        "batch": 16,
        "units": 5,
        "time_steps": 6,
    }
    middle = points.Point("lstm", 128, 128, 28)
    assert all(middle in own for own in plans.values())


@pytest.mark.parametrize(
    "times, expected",
    [
        ([5.0, 2.0, 1.2, 1.0, 1.1, 3.0], (3, 5)),
        ([1.0, 2.0, 4.0, 1.1, 8.0, 9.0], (1, 1)),
        ([1.0] * 6, (1, 6)),
    ],
)
def test_flat_range(times, expected):
    assert report.flat_range([1, 2, 3, 4, 5, 6], times) == expected


def test_tables():
    axis = points.AXES["batch"]
    measured = [
        said(points.Point("linear", 32), 2.5, 3),
        said(points.Point("gru", 32, 128, 28), 1234.5, 20.5),
        said(points.Point("linear", 64), 1, 4),
        said(points.Point("gru", 64, 128, 28), 1100, 2000),
    ]
    assert report.to_markdown(axis, measured).splitlines() == [
        "Training time per image in microseconds, by images per batch; flat: time per "
        "MAC at most 20% above its least:",
        "",
        "| images per batch | linear | gru |",
        "| ---: | ---: | ---: |",
        "| 32 | 2.50 | 1,234 |",
        "| 64 | 1.00 | 1,100 |",
        "| flat | 64 | 32 to 64 |",
        "",
        "Memory in MiB, by images per batch:",
        "",
        "| images per batch | linear | gru |",
        "| ---: | ---: | ---: |",
        "| 32 | 3.00 | 20.5 |",
        "| 64 | 4.00 | 2,000 |",
    ]


def test_flat_is_by_macs_and_not_by_images():
    measured = [
        {**said(points.Point("rnn", 128, 64, 28), 1, 1), "macs": 10},
        {**said(points.Point("rnn", 128, 128, 28), 2, 1), "macs": 40},
        {**said(points.Point("rnn", 128, 256, 28), 9, 1), "macs": 160},
    ]
    assert "| flat | 128 to 256 |" in report.to_markdown(points.AXES["units"], measured)


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--models=gru,vit"], "--models=vit: expected some of linear"),
        (["--axes=depth"], "--axes=depth: expected some of batch"),
        (["--models=cnn", "--axes=units"], "no such model"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, expected):
    given = dict(x.removeprefix("--").split("=") for x in arguments)
    axes = given.get("axes", "batch").split(",")
    with pytest.raises(UserError) as caught:
        points.make_plans(axes, given.get("models", "gru").split(","), None)
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_a_point_that_fails_is_told_in_one_line():
    with pytest.raises(points.ScalingError) as caught:
        scaling.measure_in_process(points.Point("mlp", 128, 0), 0.01)
    assert str(caught.value).startswith(
        "mlp, batch 128, 0 units ended with status 1: ConfigError: --hidden_sizes=0: "
    )


def test_points_of_other_settings_are_measured_anew(tmp_path):
    path = tmp_path / "scaling.json"
    one = said(points.Point("linear", 32), 2.5, 3)
    stored = {"schema": 2, "settings": {"seconds": 1}, "points": [one]}
    path.write_text(json.dumps(stored))
    assert scaling.read(path, {"seconds": 1}) == {points.Point("linear", 32): one}
    assert scaling.read(path, {"seconds": 2}) == {}
    del stored["schema"]
    path.write_text(json.dumps(stored))
    assert scaling.read(path, {"seconds": 1}) == {}
    del one["units"]
    path.write_text(json.dumps(stored | {"schema": 2}))
    with pytest.raises(UserError, match="is damaged"):
        scaling.read(path, {"seconds": 1})
    path.write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        scaling.read(path, {"seconds": 1})


@pytest.mark.slow
def test_end_to_end_and_again(tmp_path, run_study):
    arguments = (
        "--models=linear",
        "--axes=batch",
        "--max_values=2",
        "--seconds=0.03",
        "--workdir=out",
    )
    output, errors = run_study("speed.scaling", *arguments, cwd=tmp_path)
    workdir = tmp_path / "out"
    files = {path.name for path in workdir.iterdir()}
    assert files == {"scaling.json", "scaling.md", "scaling.png"}
    content = json.loads((workdir / "scaling.json").read_text())
    assert {"seconds", "cpu", "cores", "versions"} <= set(content["settings"])
    assert [x["batch_size"] for x in content["points"]] == [32, 64]
    for one in content["points"]:
        assert 0 < one["seconds_per_image"] < 0.1
        assert one["compile_seconds"] > 0 and one["num_devices"] >= 1
        assert 0 < one["memory_bytes"] < 2**30
        assert one["macs"] == 7840
    assert output.strip() == (workdir / "scaling.md").read_text().strip()
    assert "2/2 linear, batch 64: " in errors

    before = (workdir / "scaling.json").read_bytes()
    again, errors = run_study("speed.scaling", *arguments, cwd=tmp_path)
    assert (again, errors) == (output, "")
    assert (workdir / "scaling.json").read_bytes() == before
