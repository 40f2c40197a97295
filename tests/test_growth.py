"""What a step takes on many chips, by paper, and the study that checks it on CPU."""

import json

import pytest

from experiments.speed import growth
from experiments.speed.accelerator_parts import targets
from experiments.speed.growth_parts import check, links

CHIPS = (1, 2, 4, 8, 16, 64, 256, 512, 1_024)


@pytest.mark.parametrize("target", links.ALL_REDUCE)
def test_an_all_reduce_grows_with_chips_and_bytes(target):
    all_reduce = links.ALL_REDUCE[target]
    assert all_reduce(1e6, 1) == 0
    for num_bytes in (1e4, 1e8):
        # From the slice that has both axes of a torus on.
        seconds = [all_reduce(num_bytes, n) for n in CHIPS[2:]]
        assert seconds == sorted(seconds) and seconds[0] > 0
        assert all_reduce(2 * num_bytes, 8) > all_reduce(num_bytes, 8)


def test_small_all_reduces_cost_their_rounds_and_large_ones_their_bytes():
    # 6.8 us and 2 * 7 steps of 0.6 us.
    assert links.gpu_all_reduce(0, 8) == pytest.approx(15.2e-6)
    # Each byte twice over a link of 450 GB/s, of which 91.5% are data.
    large = links.gpu_all_reduce(1e9, 8)
    assert large == pytest.approx(2e9 / (450e9 * 0.915), rel=0.02)
    # Rings of four along two axes: there and back in four hops each.
    assert links.tpu_all_reduce(0, 16) == pytest.approx(8e-6)
    assert links.tpu_all_reduce(1e9, 16) == pytest.approx(
        2e9 * 15 / 16 / 180e9, rel=0.01
    )
    # Two pods: a round each way between them.
    extra = links.tpu_all_reduce(0, 512) - links.tpu_all_reduce(0, 256)
    assert extra == pytest.approx(40e-6)


def rows_of(target, **changes):
    """Rows of a chip whose step takes 100 us and 1 us more for each image."""
    found = []
    for share in growth._SHARES:
        seconds = (100 + share) * 1e-6
        chip = {"roofline_seconds": seconds - 20e-6, "kernels": 10}
        if targets.find(target).platform == "tpu":
            chip = {"cycles": seconds * 197e12 / (4 * 128**2 * 2)}
        found.append(
            {"target": target, "model": "mlp", "num_params": 500_000} | chip | changes
        )
    return found


@pytest.mark.parametrize("target", links.ALL_REDUCE)
def test_predictions_are_the_sum_of_their_parts(target):
    found = growth.predict(rows_of(target), 2e-6, 8_192)
    assert found["step"] == pytest.approx(1_124)
    reduce_8 = 1e6 * links.ALL_REDUCE[target](2_000_008, 8)
    assert found["reduce_8"] == pytest.approx(reduce_8)
    assert found["weak"][8] == pytest.approx(1_124 / (1_124 + reduce_8))
    # 8,192 images are more than was compiled for.
    assert found["strong"][1] == pytest.approx(1)
    assert found["strong"][8] == pytest.approx(8_292 / (1_124 + reduce_8))
    most = found["strong_most"]
    assert found["strong"][most] / most >= 0.5
    assert found["strong"][2 * most] / (2 * most) < 0.5
    assert found["strong_best"] == found["strong"][most]


@pytest.mark.slow
def test_devices_of_several_processes_are_timed(monkeypatch):
    monkeypatch.setattr(check, "_GROUPS", ((1, 1), (2, 2)))
    said = []
    rows = check.check("linear", 64, 0, said.append, growth.GrowthError)
    assert said[-1] == "linear: 2 devices, 2 processes"
    one, two = rows
    assert one["all_reduce_ms"] == 0 < two["all_reduce_ms"] < two["predicted_ms"]
    for row in rows:
        assert row["ratio"] == pytest.approx(row["measured_ms"] / row["predicted_ms"])


@pytest.mark.slow
def test_growth_is_checked_on_cpu_devices(tmp_path, run_study):
    arguments = ("--models=linear", "--batch_size=64", "--seconds=0")
    output, errors = run_study("speed.growth", *arguments, cwd=tmp_path)
    folder = tmp_path / "runs" / "growth"
    rows = json.loads((folder / "growth.json").read_text())["rows"]
    groups = [(row["num_devices"], row["num_processes"]) for row in rows]
    assert groups == [(1, 1), (2, 1), (4, 1), (8, 1), (2, 2), (4, 4)]
    for row in rows:
        assert (row["all_reduce_ms"] > 0) == (row["num_devices"] > 1)
    assert "linear: 4 devices, 4 processes" in errors
    assert (folder / "growth.md").read_text().count("| linear") == 6
    assert not (folder / "weak.png").exists() and "measured over" in output


@pytest.mark.parametrize(
    "flag", ["--batch_size=12", "--cuda_python=nowhere", "--models=linear,linear"]
)
def test_growth_refuses_in_one_line(tmp_path, run_study, flag):
    _, errors = run_study("speed.growth", flag, cwd=tmp_path, code=1)
    assert flag in errors and errors.count("\n") == 1
    assert not (tmp_path / "runs").exists()
