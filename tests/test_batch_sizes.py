"""The study of batches and learning rates, on scikit-learn's digits."""

import json

import pytest

from experiments.accuracy import batch_sizes
from experiments.common import runs
from mnist_jax.config import make_config
from mnist_jax.divergence import TrainingError

SMALL = ("--dataset=digits", "--preset=quick", "--models=linear", "--seeds=0")


def test_rates_follow_the_batch(tmp_path, run_study):
    arguments = (*SMALL, "--batch_sizes=32,128")
    output, _ = run_study("accuracy.batch_sizes", *arguments, cwd=tmp_path)
    folder = tmp_path / "runs" / "batch_sizes"
    rows = json.loads((folder / "batch_sizes-digits.json").read_text())["rows"]
    preset = make_config("linear", "digits", "quick")
    assert preset.batch_size == 32
    rates = {(row["batch_size"], row["scaling"]): row["learning_rate"] for row in rows}
    # At the preset's batch all scalings are the same run.
    assert rates == {
        (32, "constant"): preset.learning_rate,
        (128, "constant"): preset.learning_rate,
        (128, "square root"): 2 * preset.learning_rate,
        (128, "linear"): 4 * preset.learning_rate,
    }
    for row in rows:
        place = f"digits-quick-linear-{row['batch_size']}-"
        place += f"{row['scaling'].replace(' ', '_')}-0"
        lines = (folder / place / "metrics.jsonl").read_text().splitlines()
        last = json.loads(lines[-1])
        assert row["accuracies"] == [last["validation_accuracy"]]
    assert (folder / "batch_sizes-digits.md").read_text().count("\n| linear") == 4
    assert (folder / "batch_sizes-digits.png").stat().st_size and "128" in output


def test_what_diverges_is_said_and_not_drawn(monkeypatch, tmp_path):
    def diverge(*_, **__):
        raise TrainingError("loss is nan")

    monkeypatch.setattr(runs, "train_all", diverge)
    assert batch_sizes.train("x", make_config("linear", "digits"), tmp_path) is None
    row = {"model": "mlp", "scaling": "linear", "batch_size": 64}
    lost = row | {"accuracies": [0.5, None], "learning_rate": 1.0}
    kept = row | {"accuracies": [0.5, 0.7], "learning_rate": 1.0}
    cells = batch_sizes.Table(batch_sizes.COLUMNS, [kept, lost]).cells()
    assert [line[-1] for line in cells] == ["60.00%", "50.00%, 1 of 2 diverge"]
    none = row | {"accuracies": [None, None], "learning_rate": 1.0}
    cells = batch_sizes.Table(batch_sizes.COLUMNS, [none]).cells()
    assert cells[-1][-1] == "2 of 2 diverge"
    assert batch_sizes.draw([kept, lost, none]).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "flag", ["--batch_sizes=0", "--batch_sizes=64,64", "--batch_sizes=", "--seeds=x"]
)
def test_wrong_flags_are_refused_in_one_line(tmp_path, run_study, flag):
    _, errors = run_study("accuracy.batch_sizes", *SMALL, flag, cwd=tmp_path, code=1)
    assert flag in errors and errors.count("\n") == 1
    assert not (tmp_path / "runs").exists()
