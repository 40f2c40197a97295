"""What earlier versions wrote, literally, is read: evaluated, drawn and gone on with.

Each schema's folder is that of a linear model on scikit-learn's digits, in its first
epoch of two or complete.
"""

import json

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from mnist_jax import data, digests, plots, predict, training
from mnist_jax.config import Config, make_config
from mnist_jax.optim import make_optimizer, make_schedule
from mnist_jax.storage import records
from mnist_jax.storage.records import RecordsError
from mnist_jax.storage.stored_run import require_config
from mnist_jax.training_setup import prepare

# Without the settings at the end that the model does not have, which were null.
CONFIG = """{
  "model": "linear", "dataset": "digits", "preset": "default", "data_dir": null,
  "raw_dir": null, "seed": 0, "epochs": 2, "batch_size": 32, "optimizer": "adam",
  "learning_rate": 0.005, "schedule": "cosine", "weight_decay": 0.0, "clip_norm": 0.0,
  "label_smoothing": 0.0, "augment": "none", "validation_fraction": 0.1,
  "num_devices": 1, "checkpoint_every": 30, "hidden_sizes": null, "dropout": null,
  "units": null, "layers": null, "bidirectional": null, "sequence": null
}"""
EPOCH = (
    '{"epoch": 1, "train_loss": 0.9734545166675861, "train_accuracy": '
    '0.7676282051282052, "validation_loss": 0.5034075203815518, "validation_accuracy": '
    '0.8714285714285714, "learning_rate": 0.0026006647385656834, "seconds": 0.1257025, '
    '"images_per_second": 9928.203417370503}'
)
RESULT = """{
  "model": "linear", "dataset": "digits",
  "provenance": "scikit-learn 1.9.1 (load_digits), SHA-256 verified",
  "class_names": ["0", "1"], "test_accuracy": 0.9042821158690176,
  "test_loss": 0.42922588673906836, "per_class_accuracy": [0.5, 1.0],
  "confusion_matrix": [[1, 1], [0, 2]], "num_params": 7850,
  "num_train_images": 1260, "num_validation_images": 140, "num_test_images": 397,
  "epochs": 2, "compile_seconds": 3.15, "train_seconds": 0.13,
  "versions": {"mnist_jax": "0.1.0", "jax": "0.10.1"},
  "device": {"platform": "cpu", "kind": "cpu", "num_devices": 1, "num_processes": 1}
}"""
STEPS = 39  # in an epoch
NOT_IDENTITY = ("data_dir", "raw_dir", "num_devices", "checkpoint_every")


def schema_1(run, step, params, training_tree, epochs):
    """(config.json, metrics.jsonl, result.json, record of a checkpoint)."""
    config = json.loads(CONFIG)
    record = {
        "layout": 2,
        "run": {k: x for k, x in config.items() if k not in NOT_IDENTITY},
    }
    return config, epochs, json.loads(RESULT), record


def schema_2(run, step, params, training_tree, epochs):
    config = json.loads(CONFIG) | {"schema": 2, "data_sha256": run.dataset.sha256}
    record = {
        "schema": 2,
        "identity": {
            "model": "linear", "dataset": "digits", "epochs": 2, "batch_size": 32,
            "learning_rate": 0.005, "schedule": "cosine",
        },
        "history": ["loss", "accuracy"],
    }  # fmt: skip
    epochs = [{"schema": 2, **epoch} for epoch in epochs]
    return config, epochs, {"schema": 2, **json.loads(RESULT)}, record


SCHEMAS = [schema_1, schema_2]


def write_checkpoint(folder, step, params, training_tree, record, epochs):
    """As both schemas lay it out, by orbax alone."""
    record |= {
        "epochs": epochs,
        "sha256": {
            "params": digests.of_arrays(params),
            "training": digests.of_arrays(training_tree),
            "epochs": digests.of_json(epochs),
        },
    }
    items = ocp.args.Composite(
        params=ocp.args.StandardSave(params),
        training=ocp.args.StandardSave(training_tree),
        record=ocp.args.JsonSave(record),
    )
    folder.mkdir()
    with ocp.CheckpointManager(folder) as manager:
        manager.save(step, args=items)


@pytest.fixture(scope="module")
def run():
    return prepare(make_config("linear", "digits", epochs=2, num_devices=1))


@pytest.fixture(params=SCHEMAS, ids=lambda schema: schema.__name__)
def make_workdir(request, run, tmp_path):
    """(step) -> a run's folder that holds its checkpoint of that step."""

    def make(step):
        state = prepare(run.config).trainer
        state.start_epoch(0)
        state.run(0, min(step, STEPS))
        if step > STEPS:
            state.start_epoch(1)
            state.run(0, step - STEPS)
        state, history = jax.device_get((state.state, state.history))
        tree = {
            "step": state.step,
            "opt_state": state.opt_state,
            "history": {name: history[name] for name in ("loss", "accuracy")},
            "clock": {"compile": 1.5, "train": 0.25, "epoch": 0.0},
        }
        tree = jax.tree.map(np.asarray, tree)
        epochs = [json.loads(EPOCH) | {"epoch": 1 + n} for n in range(step // STEPS)]
        config, lines, result, record = request.param(
            run, step, state.params, tree, epochs
        )
        workdir = tmp_path / "run"
        workdir.mkdir()
        (workdir / "config.json").write_text(json.dumps(config))
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        (workdir / "metrics.jsonl").write_text(text)
        if step == 2 * STEPS:
            (workdir / "result.json").write_text(json.dumps(result))
        params = jax.tree.map(np.asarray, state.params)
        write_checkpoint(workdir / "checkpoints", step, params, tree, record, epochs)
        return workdir

    return make


@pytest.fixture(scope="module")
def undisturbed(run, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    training.train_and_evaluate(run.config, workdir)
    return workdir


@pytest.mark.parametrize("step", [17, STEPS])
def test_an_unfinished_run_goes_on_to_the_same_end(
    make_workdir, run, undisturbed, step
):
    workdir = make_workdir(step)
    starts = []
    training.train_and_evaluate(run.config, workdir, on_epochs=starts.append)
    epochs, expected = records.read_metrics(workdir), records.read_metrics(undisturbed)
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    assert epochs[1]["train_loss"] == expected[1]["train_loss"]
    if step < STEPS:
        assert epochs[0]["train_loss"] == expected[0]["train_loss"]
    results = [records.read_result(path) for path in (workdir, undisturbed)]
    assert results[0]["test_loss"] == results[1]["test_loss"]
    assert results[0]["train_seconds"] > 0.25, "with the time before"
    stored = records.read_config(workdir)
    assert stored.data_sha256 == run.dataset.sha256, "written by this version from now"


def test_a_complete_run_is_complete_and_evaluated(make_workdir, run, undisturbed):
    workdir = make_workdir(2 * STEPS)
    result = training.train_and_evaluate(run.config, workdir)
    assert result["test_loss"] == 0.42922588673906836, "as recorded, not trained again"
    found = predict.evaluate(workdir)
    expected = predict.evaluate(undisturbed)
    assert found.is_complete and found.scores == expected.scores


def test_curves_are_drawn_from_metrics_with_and_without_a_new_column(make_workdir):
    workdir = make_workdir(STEPS)
    lines = (workdir / "metrics.jsonl").read_text()
    later = json.loads(EPOCH) | {"epoch": 2, "train_error": 0.1, "validation_f1": None}
    (workdir / "metrics.jsonl").write_text(lines + json.dumps(later))
    epochs = records.read_metrics(workdir)
    assert "train_error" not in epochs[0] and epochs[1]["train_error"] == 0.1
    assert [path.name for path in plots.draw_all(workdir)] == ["curves.png"]


def test_a_run_begun_before_a_setting_was_added_goes_on(make_workdir, run):
    workdir = make_workdir(STEPS)
    settings = json.loads((workdir / "config.json").read_text())
    for added in ("label_smoothing", "clip_norm", "sequence", "checkpoint_every"):
        del settings[added]
    (workdir / "config.json").write_text(json.dumps(settings))
    training.train_and_evaluate(run.config, workdir)
    assert len(records.read_metrics(workdir)) == 2
    assert records.read_metrics(workdir)[0]["train_loss"] == 0.9734545166675861


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "result.json"])
def test_a_later_schema_is_refused_in_one_line(make_workdir, name):
    workdir = make_workdir(2 * STEPS)
    path = workdir / name
    head = path.read_text().splitlines()[0]
    path.write_text(json.dumps({**json.loads(head), "schema": 3}) + "\n")
    read = {
        "config.json": require_config,
        "metrics.jsonl": records.read_metrics,
        "result.json": records.read_result,
    }[name]
    with pytest.raises(RecordsError, match=f"{name} .*schema 3.*version") as caught:
        read(workdir)
    assert "\n" not in str(caught.value)


def test_a_metric_that_is_new_is_unknown_until_the_next_epoch(
    make_workdir, monkeypatch, run
):
    workdir = make_workdir(17)
    monkeypatch.setitem(
        training.metrics.STEP_METRICS,
        "error",
        lambda x, y: 1 - (x.argmax(-1) == y).mean(),
    )
    training.train_and_evaluate(run.config, workdir)
    first, second = records.read_metrics(workdir)
    assert first["train_error"] is None
    assert second["train_error"] == pytest.approx(1 - second["train_accuracy"])
    assert plots.draw_all(workdir)


def test_digests_are_those_of_earlier_versions():
    """Else their checkpoints would count as damaged, and their runs as others."""
    optimizer = make_optimizer("adam", make_schedule("cosine", 0.1, 9))
    kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    params = {"kernel": kernel, "bias": np.zeros(3, np.float32)}
    state = {"params": params, "opt_state": jax.device_get(optimizer.init(params))}
    assert (
        digests.of_arrays(state)
        == "06579dc06fa635b9a93f77d456f2206f999adfe61f99d2e0bc49a07e8497aec5"
    )
    record = {"epochs": [json.loads(EPOCH)], "class_names": ["0", "ö"], "fold": None}
    assert (
        digests.of_json(record)
        == "68750bc2d52868d982480451c23215904aa4ae92267387b2f7939a6d620c19fc"
    )


def test_other_data_of_the_same_name_are_refused_in_one_line(tmp_path, run_launch):
    settings = Config.from_dict(json.loads(CONFIG)).to_dict()
    records.write_config(tmp_path, settings, "0" * 64)
    data.prepare("digits")
    _, errors = run_launch(
        "--model=linear", "--dataset=digits", "--epochs=2", f"--workdir={tmp_path}",
        cwd=tmp_path, code=1,
    )  # fmt: skip
    [line] = errors.splitlines()
    assert "holds another run (other data named digits" in line
    assert "--overwrite" in line
