"""The search: its space, its rungs, and a whole one that is stopped and goes on."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from mnist_jax.config import make_config

sys.path.insert(0, str(Path(__file__).parent.parent / "experiments"))

from search import halving, space  # noqa: E402


def test_space_by_kind():
    got = space.parse(
        [
            "learning_rate=1e-4..1e-1",
            "units=32,64",
            "optimizer=adam,sgd",
            "bidirectional=true,false",
            "hidden_sizes=128,512-256",
            "dropout=0,0.5",
        ]
    )
    assert got == {
        "learning_rate": space.Range(1e-4, 1e-1),
        "units": space.Choices((32, 64)),
        "optimizer": space.Choices(("adam", "sgd")),
        "bidirectional": space.Choices((True, False)),
        "hidden_sizes": space.Choices(((128,), (512, 256))),
        "dropout": space.Choices((0.0, 0.5)),
    }


@pytest.mark.parametrize(
    "texts, expected",
    [
        (["depth=3"], "--vary=depth=3: expected one of seed, batch_size"),
        (["epochs=3"], "--vary=epochs=3: expected one of"),
        (["units=32..64"], "--vary=units=32..64: expected values like 32,64,128"),
        (["learning_rate=1..0.1"], "expected values like 1e-4..1e-1"),
        (["learning_rate="], "expected values like 1e-4..1e-1"),
        (["learning_rate=fast"], "expected values like 1e-4..1e-1"),
        (["bidirectional=maybe"], "expected values like true,false"),
        (["units=1", "units=2"], "units is given twice"),
    ],
)
def test_a_wrong_space_is_told_in_one_line(texts, expected):
    with pytest.raises(space.SpaceError) as caught:
        space.parse(texts)
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_draws_are_even_on_their_scale_and_repeatable():
    given = space.parse(["learning_rate=1e-4..1e-2", "dropout=0..0.5"])
    trials = space.draw(given, 400, seed=3)
    assert space.draw(given, 400, seed=3) == trials
    assert space.draw(given, 10, seed=3) == trials[:10]
    rates = np.log10([trial["learning_rate"] for trial in trials])
    assert rates.min() > -4 and rates.max() < -2
    assert np.mean(rates < -3) == pytest.approx(0.5, abs=0.1)
    drops = np.array([trial["dropout"] for trial in trials])
    assert 0 <= drops.min() and drops.max() <= 0.5
    assert np.mean(drops < 0.25) == pytest.approx(0.5, abs=0.1)


def test_grid_takes_all_combinations():
    given = space.parse(["units=1,2", "optimizer=adam,sgd"])
    assert space.grid(given) == [
        {"units": 1, "optimizer": "adam"},
        {"units": 1, "optimizer": "sgd"},
        {"units": 2, "optimizer": "adam"},
        {"units": 2, "optimizer": "sgd"},
    ]
    with pytest.raises(space.SpaceError, match="a range has no end"):
        space.grid(space.parse(["dropout=0..0.5"]))


@pytest.mark.parametrize(
    "epochs, factor, expected",
    [(9, 3, [1, 3, 9]), (12, 3, [1, 4, 12]), (2, 3, [2]), (5, 1, [5]), (1, 2, [1])],
)
def test_rungs(epochs, factor, expected):
    assert halving.rungs(epochs, factor) == expected


def test_groups_share_all_but_numbers():
    settings = [
        dict(learning_rate=1e-3, units=8),
        dict(learning_rate=1e-3, units=4),
        dict(learning_rate=2e-3, units=8, seed=3),
        dict(dropout=0.5, units=8),
    ]
    configs = [make_config("gru", "mnist", **own) for own in settings]
    assert halving.group(configs) == [[0, 2, 3], [1]]


ARGUMENTS = (
    "--model=linear",
    "--dataset=digits",
    "--vary=learning_rate=1e-4..1e-1",
    "--vary=batch_size=32,64",
    "--trials=6",
    "--epochs=4",
    "--halving=2",
)


def test_a_whole_search_and_again(tmp_path, run_study):
    output, _ = run_study("sweep.py", *ARGUMENTS, cwd=tmp_path)
    workdir = tmp_path / "runs" / "sweep-digits-linear"
    assert {path.name for path in workdir.iterdir()} == {
        "sweep.json", "sweep.md", "sweep.png", "report.html",
    }  # fmt: skip
    content = json.loads((workdir / "sweep.json").read_text())
    trained = [len(trial["scores"]) for trial in content["trials"]]
    assert sorted(trained) == [1, 1, 1, 2, 4, 4]
    last = {
        i: trial["scores"][-1]["validation_accuracy"]
        for i, trial in enumerate(content["trials"])
    }
    # Who goes on was better at the rung.
    at_first = [
        trial["scores"][0]["validation_accuracy"] for trial in content["trials"]
    ]
    kept = [
        score for score, epochs in zip(at_first, trained, strict=True) if epochs > 1
    ]
    gone = [
        score for score, epochs in zip(at_first, trained, strict=True) if epochs < 2
    ]
    assert min(kept) >= max(gone)
    best = max((i for i in last if trained[i] == 4), key=last.get)
    rate = content["trials"][best]["settings"]["learning_rate"]
    command = output.strip().splitlines()[-1]
    assert command.startswith("python launch.py --model=linear --dataset=digits")
    assert f"--learning_rate={rate!r}" in command

    # Finished: nothing is trained or decided again.
    whole = (workdir / "sweep.json").read_bytes()
    again, _ = run_study("sweep.py", *ARGUMENTS, cwd=tmp_path)
    assert again == output
    assert (workdir / "sweep.json").read_bytes() == whole
    _, errors = run_study("sweep.py", *ARGUMENTS, "--seed=1", cwd=tmp_path, code=1)
    assert "holds another search" in errors and "Traceback" not in errors


def test_a_search_that_was_stopped_gives_the_same_numbers(tmp_path, data_dir):
    from mnist_jax import datasets

    datasets.prepare("digits")
    settings = [dict(learning_rate=rate) for rate in (1e-3, 1e-2, 3e-2)]
    configs = [
        make_config("linear", "digits", epochs=4, batch_size=64, **own)
        for own in settings
    ]

    class Stop(Exception):
        pass

    class Stopped(halving.Search):
        def _write(self):
            super()._write()
            self.left -= 1
            if not self.left:
                raise Stop

    whole = halving.Search(tmp_path / "whole" / "sweep.json", configs, settings, 2)
    whole.run()
    path = tmp_path / "stopped" / "sweep.json"
    for count in (1, 2):
        search = Stopped(path, configs, settings, 2)
        search.left = count
        with pytest.raises(Stop):
            search.run()
    stopped = halving.Search(path, configs, settings, 2)
    stopped.run()
    assert stopped.trials == whole.trials


def test_a_rung_is_decided_by_its_own_epoch(tmp_path):
    """Who was better there stays, though it is worse later."""
    settings = [dict(learning_rate=rate) for rate in (1e-3, 1e-2)]
    configs = [make_config("linear", "digits", epochs=2, **own) for own in settings]
    search = halving.Search(tmp_path / "sweep.json", configs, settings, 2)
    accuracies = [[0.96, 0.94], [0.95]]
    for trial, own in zip(search.trials, accuracies, strict=True):
        trial["scores"] = [
            {"validation_accuracy": x, "validation_loss": 1.0} for x in own
        ]
    search._write()
    before = search.path.read_bytes()
    again = halving.Search(search.path, configs, settings, 2)
    again.run()
    again._write()
    assert [len(trial["scores"]) for trial in again.trials] == [2, 1]
    assert again.ranking() == [0, 1]
    after = json.loads(search.path.read_bytes())["trials"]
    assert [x["scores"] for x in after] == [
        x["scores"] for x in json.loads(before)["trials"]
    ]
