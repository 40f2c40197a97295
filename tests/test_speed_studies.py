"""Studies of speed that have no test file of their own, on scikit-learn's digits."""

import json

import pytest

MEMBERS = ("--members=2", "--rounds=1")


@pytest.mark.parametrize(
    "name, key, arguments",
    [
        ("profile_steps", "profile", ()),
        pytest.param("vectorized_runs", "vectorized", MEMBERS, marks=pytest.mark.slow),
        pytest.param("startup", "startup", (), marks=pytest.mark.slow),
        pytest.param(
            "data_placement",
            "data_placement",
            ("--rounds=1", "--images=256,2560"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_studies_of_speed_run_end_to_end(tmp_path, run_study, name, key, arguments):
    arguments = ("--dataset=digits", "--models=linear", *arguments)
    output, _ = run_study(f"speed.{name}", *arguments, cwd=tmp_path)
    folder = tmp_path / "runs" / key
    rows = json.loads((folder / f"{key}.json").read_text())["rows"]
    assert all(row["model"] == "linear" for row in rows)
    # One run, and two of them together.
    assert len(rows) == (2 if name == "vectorized_runs" else 1)
    assert (folder / f"{key}.md").read_text().count("\n| linear") == len(rows)
    assert "linear" in output


@pytest.mark.parametrize("members", ["1", "2,2", "x", ""])
def test_vectorized_runs_refuses_numbers(tmp_path, run_study, members):
    _, errors = run_study(
        "speed.vectorized_runs", f"--members={members}", cwd=tmp_path, code=1
    )
    assert f"--members={members}: " in errors and errors.count("\n") == 1


def test_data_placement_needs_room_on_the_disk(tmp_path, run_study):
    _, errors = run_study(
        "speed.data_placement", "--images=1000000000000", cwd=tmp_path, code=1
    )
    assert "has room for" in errors and errors.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("images", ["127", "256,256", "x", ""])
def test_data_placement_refuses_numbers(tmp_path, run_study, images):
    _, errors = run_study(
        "speed.data_placement", f"--images={images}", cwd=tmp_path, code=1
    )
    assert f"--images={images}: " in errors and errors.count("\n") == 1


@pytest.mark.parametrize("lengths", ["0", "28,28", "x", ""])
def test_lengths_refuses_numbers(tmp_path, run_study, lengths):
    _, errors = run_study("speed.lengths", f"--lengths={lengths}", cwd=tmp_path, code=1)
    assert f"--lengths={lengths}: " in errors and errors.count("\n") == 1


@pytest.mark.slow
def test_lengths_runs_end_to_end(tmp_path, run_study):
    arguments = ("--models=mingru,rnn", "--lengths=4,9", "--seconds=0")
    arguments += ("--remat_steps=0,4",)
    output, errors = run_study("speed.lengths", *arguments, cwd=tmp_path)
    folder = tmp_path / "runs" / "lengths"
    rows = json.loads((folder / "lengths.json").read_text())["rows"]
    assert [(row["model"], row["length"]) for row in rows] == [
        ("mingru", 4), ("rnn", 4), ("mingru", 9), ("mingru, remat 4", 9), ("rnn", 9),
        ("rnn, remat 4", 9),
    ]  # fmt: skip
    assert all(row["milliseconds"] > 0 and row["mebibytes"] > 0 for row in rows)
    assert output.count("\n") == 7 and errors.count("\n") == 6
    charts = {path.name for path in folder.glob("*.png")}
    assert charts == {"lengths_milliseconds.png", "lengths_mebibytes.png"}
