"""Runs that start from the weights of another run."""

import json
import shutil

import jax
import numpy as np
import pytest
from image_trees import NUMERALS, write_tree
from runs_of_launch import (
    assert_same_bits,
    assert_same_run,
    checkpoint_steps,
    make_mlp,
    saved,
    train_until,
    without_times,
)

from mnist_jax import init_from, stored_model, training
from mnist_jax.config import ConfigError, make_config
from mnist_jax.storage import records
from mnist_jax.storage.checkpoints import CheckpointError
from mnist_jax.storage.records import RecordsError
from mnist_jax.storage.stored_run import require_config
from mnist_jax.training import train_and_evaluate
from mnist_jax.training_setup import prepare
from mnist_jax.vectorized import VectorizedRuns

NEW = ("Dense_2/bias", "Dense_2/kernel")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A run on scikit-learn's digits."""
    workdir = tmp_path_factory.mktemp("other")
    settings = {"augment": "none", "dropout": 0.0, "learning_rate": 3e-3}
    train_and_evaluate(make_mlp(epochs=6, hidden_sizes=(64, 64), **settings), workdir)
    return workdir


@pytest.fixture(scope="module")
def different(tmp_path_factory):
    """A run of other weights."""
    workdir = tmp_path_factory.mktemp("different")
    train_and_evaluate(make_mlp(seed=1, epochs=1), workdir)
    return workdir


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Six of the digits as images, 20 of each."""
    return write_tree(tmp_path_factory.mktemp("tree"), NUMERALS, 20)


@pytest.fixture(scope="module")
def make(tree):
    """A config like that of `other`, for the six classes."""

    def make(start, **settings):
        settings = {"epochs": 2, "learning_rate": 3e-3, **settings}
        return make_config(
            "mlp", "folder", raw_dir=str(tree), hidden_sizes=(64, 64), num_devices=1,
            batch_size=8, init_from=start and str(start), **settings,
        )  # fmt: skip

    return make


@pytest.fixture(scope="module")
def whole(other, make, tmp_path_factory):
    """An undisturbed run that starts from `other`."""
    workdir = tmp_path_factory.mktemp("whole")
    train_and_evaluate(make(other), workdir)
    return workdir


def fitted(config, workdir):
    """Facts and params of a run's start, and its setup."""
    setup = prepare(config)
    return *init_from.fit(init_from.find(config, workdir, False), setup), setup


def test_all_but_the_last_layer_is_taken_over(other, make, tmp_path):
    facts, params, setup = fitted(make(other), tmp_path)
    assert facts.new_params == NEW and len(facts.init_from_sha256) == 64
    theirs, own = saved(other)[0], jax.device_get(setup.trainer.state.params)
    for layer in ("Dense_0", "Dense_1"):
        assert_same_bits(params[layer], theirs[layer])
    assert_same_bits(params["Dense_2"], own["Dense_2"])
    assert params["Dense_2"]["kernel"].size == 64 * 6
    assert own["Dense_0"]["kernel"].tobytes() != theirs["Dense_0"]["kernel"].tobytes()


def test_the_same_number_of_classes_takes_over_all(other, tmp_path):
    config = make_mlp(seed=3, hidden_sizes=(64, 64), init_from=str(other))
    facts, params, _ = fitted(config, tmp_path)
    assert facts.new_params == ()
    assert_same_bits(params, saved(other)[0])


def test_the_first_epoch_is_better_than_from_scratch(other, make, tmp_path):
    settings = {"epochs": 1, "augment": "none", "dropout": 0.0}
    train_and_evaluate(make(None, **settings), tmp_path / "scratch")
    train_and_evaluate(make(other, **settings), tmp_path / "run")
    [scratch], [run] = (records.read_metrics(tmp_path / x) for x in ("scratch", "run"))
    assert run["train_accuracy"] > scratch["train_accuracy"] + 0.1
    assert run["validation_accuracy"] > scratch["validation_accuracy"]
    stored = records.read_config(tmp_path / "run")
    assert stored.facts.new_params == NEW
    assert stored.settings["init_from"] == str(other)
    scratch = json.loads((tmp_path / "scratch" / records.CONFIG).read_text())
    assert "new_params" not in scratch and "init_from_sha256" not in scratch
    # The optimizer is new: as many steps as of a run from scratch.
    _, training_tree, _ = saved(tmp_path / "run")
    assert training_tree["step"] == 10


@pytest.mark.parametrize("change", ["gone", "changed"])
def test_a_stopped_run_goes_on_to_the_same_bits_whatever_became_of_the_other(
    other, different, make, whole, tmp_path, change
):
    start = shutil.copytree(other, tmp_path / "start")
    config = make(start)
    train_until(lambda losses, done: done >= 8, config, tmp_path / "run")
    assert checkpoint_steps(tmp_path / "run")
    shutil.rmtree(start)
    if change == "changed":
        shutil.copytree(different, start)
    train_and_evaluate(config, tmp_path / "run")
    assert_same_run(tmp_path / "run", whole)
    stored = [records.read_config(path).facts for path in (tmp_path / "run", whole)]
    assert stored[0] == stored[1] and stored[0].new_params == NEW
    before = records.read_result(tmp_path / "run")
    assert train_and_evaluate(config, tmp_path / "run") == before, "complete"


def test_other_weights_are_another_run(other, different, make, tmp_path):
    train_until(lambda losses, done: True, make(other), tmp_path / "run")
    moved = shutil.copytree(other, tmp_path / "moved")
    before = (tmp_path / "run" / records.CONFIG).read_bytes()
    told = f"holds another run .--init_from={other} .weights of SHA-256 .*there, "
    with pytest.raises(RecordsError, match=f"{told}--init_from={different} .*here"):
        train_and_evaluate(make(different), tmp_path / "run")
    with pytest.raises(RecordsError, match=f"{told}no --init_from here.*--overwrite"):
        train_and_evaluate(make(None), tmp_path / "run")
    assert (tmp_path / "run" / records.CONFIG).read_bytes() == before
    # The same weights elsewhere are the same run, not trained yet or complete.
    train_and_evaluate(make(moved), tmp_path / "run")
    assert records.read_config(tmp_path / "run").settings["init_from"] == str(moved)
    result = records.read_result(tmp_path / "run")
    assert train_and_evaluate(make(other), tmp_path / "run") == result
    with pytest.raises(RecordsError, match="holds another run"):
        train_and_evaluate(make(different), tmp_path / "run")
    # A run from scratch does not become one with a start, nor the other way round.
    with pytest.raises(RecordsError, match="no --init_from there, --init_from=.*here"):
        train_and_evaluate(make_mlp(seed=1, epochs=1, init_from=str(other)), different)


def test_before_its_first_checkpoint_a_run_needs_the_very_weights(
    other, different, make, whole, tmp_path, monkeypatch
):
    start = shutil.copytree(other, tmp_path / "start")
    config = make(start)

    def stop(*arguments):
        raise OSError("the plug is pulled")

    with monkeypatch.context() as patch:
        patch.setattr(training, "_fit", stop)
        with pytest.raises(OSError, match="plug"):
            train_and_evaluate(config, tmp_path / "run")
    assert not checkpoint_steps(tmp_path / "run")
    shutil.rmtree(start)
    with pytest.raises(RecordsError, match="--init_from=.*start holds no run"):
        train_and_evaluate(config, tmp_path / "run")
    shutil.copytree(different, start)
    with pytest.raises(RecordsError, match="holds another run .--init_from=.*start .w"):
        train_and_evaluate(config, tmp_path / "run")
    shutil.rmtree(start)
    shutil.copytree(other, start)
    train_and_evaluate(config, tmp_path / "run")
    assert without_times(tmp_path / "run") == without_times(whole)


def test_overwriting_starts_again_from_the_other(other, make, whole, tmp_path):
    train_until(lambda losses, done: True, make(None), tmp_path / "run")
    train_and_evaluate(make(other), tmp_path / "run", overwrite=True)
    assert_same_run(tmp_path / "run", whole)


def test_weights_that_do_not_fit_are_told_and_nothing_is_written(other, make, tmp_path):
    linear = tmp_path / "linear"
    train_and_evaluate(make_config("linear", "digits", epochs=1, num_devices=1), linear)
    (tmp_path / "early").mkdir()
    shutil.copy(other / records.CONFIG, tmp_path / "early")
    (tmp_path / "empty").mkdir()

    def refused(config, error, told):
        with pytest.raises(error, match=told) as caught:
            train_and_evaluate(config, tmp_path / "run")
        assert "\n" not in str(caught.value)
        assert not list(tmp_path.glob("run/*.json*"))

    refused(make(linear), ConfigError, "a run of --model=linear, expected one of --mod")
    told = "Dense_0/bias is 64 there, 8 here: give a run with images and layers of the"
    refused(make_mlp(hidden_sizes=(8, 8), init_from=str(other)), ConfigError, told)
    refused(make(tmp_path / "empty"), RecordsError, "--init_from=.*empty holds no run")
    refused(make(tmp_path / "none"), RecordsError, "--init_from=.*none holds no run: g")
    refused(make(tmp_path / "early"), CheckpointError, "holds no checkpoint: train fir")
    six = make_config(
        "linear", "folder", raw_dir=make(None).raw_dir, init_from=str(linear)
    )
    refused(six, ConfigError, "of 10 classes, here are 6, and linear has no layer bef")


def test_weights_of_other_image_sizes_do_not_fit(other, make, tmp_path):
    config = make(other)
    found = stored_model.load(other)
    small = prepare(config).dataset._replace(
        train_images=np.zeros((60, 20, 24, 1), np.uint8)
    )
    with pytest.raises(ConfigError, match="Dense_0/kernel is 64x784 there, 64x480 her"):
        init_from._merge(config, found, found.params, small)


def test_vectorized_runs_have_no_start(other):
    with pytest.raises(ConfigError, match="--init_from=.*: vectorized runs have no o"):
        VectorizedRuns([make_mlp(init_from=str(other))])


@pytest.mark.slow
def test_the_command_says_what_it_started_from(other, tree, forked, tmp_path):
    def launch(*arguments, code=0):
        done = forked(*arguments, cwd=tmp_path)
        assert done.code == code, done.output + done.errors
        return done

    arguments = [
        "--model=mlp", "--hidden_sizes=64,64", "--epochs=1", "--batch_size=8",
        "--dataset=folder", f"--raw_dir={tree}", "--workdir=run",
    ]  # fmt: skip
    shutil.copytree(other, tmp_path / "start")
    done = launch(*arguments, "--init_from=start")
    assert done.output.splitlines()[0] == (
        f"started from the weights of {tmp_path / 'start'}, but for Dense_2/bias, "
        "Dense_2/kernel: new for 6 classes"
    )
    assert require_config(tmp_path / "run").config.init_from == str(tmp_path / "start")
    done = launch(*arguments, "--init_from=start")
    assert done.output.startswith("run was complete before")
    done = launch(*arguments, "--init_from=~no-one/x", code=1)
    assert done.errors.startswith("error: --init_from=~no-one/x cannot be used (")
    done = launch("--mode=predict", "--workdir=run", "--init_from=start", code=1)
    assert "--init_from has no effect with --mode=predict" in done.errors
