"""The search: its space, its rungs, and a whole one that is stopped and goes on."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.accuracy import sweep
from experiments.accuracy.search import halving, space
from mnist_jax import data
from mnist_jax.config import SETTINGS, make_config
from mnist_jax.storage.records import RecordsError


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
        (["units=32..64"], "expected values with commas; each is a whole number"),
        (["units=0"], "expected values with commas; each is a whole number from 1"),
        (["learning_rate=1..0.1"], "with commas, or low..high; each is a number from"),
        (["learning_rate=1e-4..1e99"], "or low..high; each is a number from"),
        (["learning_rate="], "--vary=learning_rate=: expected values with commas"),
        (["learning_rate=fast"], "or low..high; each is a number from 1e-37 to 1e+38"),
        (["learning_rate=nan..1"], "or low..high; each is a number from"),
        (["bidirectional=maybe"], "expected values with commas; each is true or false"),
        (["optimizer=adam,best"], "with commas; each is one of adam, adamw"),
        (["hidden_sizes=a-b"], "expected values with commas, each like 512-256"),
        (["units=1", "units=2"], "units is given twice"),
    ],
)
def test_a_wrong_space_is_told_in_one_line(texts, expected):
    with pytest.raises(space.SpaceError) as caught:
        space.parse(texts)
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_what_decides_a_run_can_be_varied():
    assert set(space.VARIED) == set(SETTINGS) - {
        "model", "dataset", "preset", "data_dir", "raw_dir", "preprocess", "init_from",
        "epochs", "validation_fraction", "num_devices", "data_placement",
        "checkpoint_every", "validation_fold", "validation_by", "teacher",
        "distill_weight", "temperature", "remat_steps",
    }  # fmt: skip


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


class _Given(SimpleNamespace):
    """Flags without a program."""

    def __getitem__(self, name):
        return SimpleNamespace(value=getattr(self, name))


def test_seeds_are_compared_on_the_same_images():
    given = _Given(
        model="linear", dataset="digits", preset="default", data_dir=None, raw_dir=None,
        vary=["seed=0,1"], trials=0, epochs=1, seed=0,
    )  # fmt: skip
    _, settings = sweep.draw_trials(given)
    assert settings == [{"seed": 0}, {"seed": 1}]
    assert "--validation_fold=0" in sweep.command(given, "digits", settings[0])
    given.vary = ["dropout=0,0.1"]
    assert "validation_fold" not in sweep.command(given, "digits", {"dropout": 0.1})


ARGUMENTS = (
    "--model=linear",
    "--dataset=digits",
    "--vary=learning_rate=1e-4..1e-1",
    "--vary=batch_size=32,64",
    "--trials=6",
    "--epochs=4",
    "--halving=2",
)


@pytest.mark.slow
def test_a_whole_search_and_again(tmp_path, run_study):
    output, _ = run_study("accuracy.sweep", *ARGUMENTS, cwd=tmp_path)
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
    again, _ = run_study("accuracy.sweep", *ARGUMENTS, cwd=tmp_path)
    assert again == output
    assert (workdir / "sweep.json").read_bytes() == whole
    _, errors = run_study(
        "accuracy.sweep", *ARGUMENTS, "--seed=1", cwd=tmp_path, code=1
    )
    assert "holds another search" in errors and "Traceback" not in errors


class Stop(Exception):
    pass


class Stopped(halving.Search):
    """Ends after `left` more epochs, before or after they are written."""

    left, writes = 1, True

    def _write(self):
        self.left -= 1
        if self.left or self.writes:
            super()._write()
        if not self.left:
            raise Stop


def searched(settings, epochs=4):
    """Arguments of a search of linear on the digits."""
    data.prepare("digits")
    configs = [
        make_config("linear", "digits", epochs=epochs, batch_size=64, **own)
        for own in settings
    ]
    return configs, settings, 2


RATES = [dict(learning_rate=rate) for rate in (1e-3, 1e-2, 3e-2)]


@pytest.mark.slow
def test_a_search_that_was_stopped_gives_the_same_numbers(tmp_path):
    arguments = searched(RATES)
    whole = halving.Search(tmp_path / "whole" / "sweep.json", *arguments)
    whole.run()
    path = tmp_path / "stopped" / "sweep.json"
    # The last time between a checkpoint and its scores.
    for count, writes in ((1, True), (2, True), (1, False)):
        search = Stopped(path, *arguments)
        search.left, search.writes = count, writes
        with pytest.raises(Stop):
            search.run()
    stopped = halving.Search(path, *arguments)
    assert sorted(len(trial["scores"]) for trial in stopped.trials) == [1, 2, 3]
    stopped.run()
    assert stopped.trials == whole.trials


@pytest.mark.slow
def test_a_search_without_its_scores_starts_anew(tmp_path):
    """Whatever checkpoints are left."""
    path, arguments = tmp_path / "sweep.json", searched(RATES)
    whole = halving.Search(path, *arguments)
    whole.run()
    path.unlink()
    again = halving.Search(path, *arguments)
    again.run()
    assert again.trials == whole.trials


@pytest.mark.slow
def test_survivors_may_have_one_weight_decay(tmp_path):
    settings = [own | dict(weight_decay=0.0) for own in RATES[1:]]
    settings += [dict(learning_rate=1e-5, weight_decay=0.1)] * 2
    search = halving.Search(tmp_path / "sweep.json", *searched(settings, epochs=2))
    search.run()
    assert [len(trial["scores"]) for trial in search.trials] == [2, 2, 1, 1]


def test_what_a_search_cannot_go_on_from_is_told(tmp_path):
    path, arguments = tmp_path / "sweep.json", searched(RATES)
    with pytest.raises(Stop):
        Stopped(path, *arguments).run()
    content = path.read_text()
    with pytest.raises(RecordsError, match="holds another search: delete"):
        halving.Search(path, *searched(RATES[1:]))
    for bad in ("{", "[]", '{"trials": []}', content.replace('"factor"', '"f"')):
        path.write_text(bad)
        with pytest.raises(RecordsError, match="is damaged .*: delete its folder"):
            halving.Search(path, *arguments)
    path.write_text(content.replace('"schema": 2', '"schema": 99'))
    with pytest.raises(RecordsError, match="schema 99 is of another version"):
        halving.Search(path, *arguments)
    path.write_text(content)
    search = halving.Search(path, *arguments)
    search.forget_states()
    with pytest.raises(RecordsError, match="epoch 1 are missing or damaged: delete"):
        search.run()


def test_a_search_of_schema_1_is_read(tmp_path):
    path, (configs, settings, factor) = tmp_path / "sweep.json", searched(RATES)
    scores = {"validation_accuracy": 0.9, "validation_loss": 1.0}
    trials = [{"settings": x, "epochs": 4, "scores": [scores] * 4} for x in settings]
    described = {"factor": factor, "configs": [c.to_dict() for c in configs]}
    path.write_text(json.dumps({"description": described, "trials": trials}))
    assert halving.Search(path, configs, settings, factor).trials == trials


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
