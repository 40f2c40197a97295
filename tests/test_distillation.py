"""Runs that learn from other runs."""

import shutil

import jax
import numpy as np
import optax
import pytest
from runs_of_launch import assert_same_run, error_line, make_mlp, train_until

from mnist_jax import distillation, teacher
from mnist_jax.config import ConfigError, make_config
from mnist_jax.distillation import Teacher
from mnist_jax.models import make_model
from mnist_jax.storage import records
from mnist_jax.storage.records import RecordsError
from mnist_jax.train_step import Batch, image_keys, init_state, make_train_step
from mnist_jax.training import train_and_evaluate
from mnist_jax.training_setup import load_data
from mnist_jax.vectorized import VectorizedRuns

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Two runs on scikit-learn's digits."""
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    for seed, folder in enumerate(folders):
        train_and_evaluate(make_quick(seed=seed, epochs=2), folder)
    return folders


@pytest.fixture(scope="module")
def whole(teachers, tmp_path_factory):
    """An undisturbed run that learns from both."""
    workdir = tmp_path_factory.mktemp("whole")
    train_and_evaluate(make(teachers), workdir)
    return workdir


def make(folders, **settings):
    teacher = ",".join(map(str, folders)) or None
    return make_quick(teacher=teacher, seed=5, **settings)


def make_quick(**settings):
    """Without what is slow to compile."""
    return make_mlp(augment="none", dropout=0.0, **settings)


def test_soft_targets_are_the_mean_at_a_temperature():
    model = make_model("linear", 3)
    images = RNG.uniform(size=(4, 2, 2, 1)).astype(np.float32)
    kernels = RNG.normal(size=(2, 3, 4))
    params = tuple({"Dense_0": {"kernel": k, "bias": np.zeros(3)}} for k in kernels)
    got = distillation.soft_targets(Teacher((model, model), params), images, 2.0)
    logits = images.reshape(4, 4) @ kernels.transpose(0, 2, 1) / 2
    exps = np.exp(logits)
    expected = (exps / exps.sum(-1, keepdims=True)).mean(0)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_loss_is_the_cross_entropy_at_a_temperature():
    logits, targets = RNG.normal(size=(4, 3)), RNG.dirichlet(np.ones(3), 4)
    scaled = logits / 3
    log_probabilities = scaled - np.log(np.exp(scaled).sum(-1, keepdims=True))
    expected = -9 * (targets * log_probabilities).sum(-1).mean()
    np.testing.assert_allclose(
        distillation.loss(logits, targets, 3.0), expected, rtol=1e-5
    )


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_a_step_weighs_labels_and_teacher(weight):
    model, optimizer = make_model("linear", 10), optax.sgd(0.5)
    images = RNG.integers(0, 256, (8, 4, 4, 1), np.uint8)
    keys = image_keys(np.uint32(0), np.int32(0), np.arange(8))
    batch = Batch(images, np.arange(8, dtype=np.int32), keys)
    state = init_state(model, optimizer, 0, (4, 4, 1))
    targets = RNG.dirichlet(np.ones(10), 8).astype(np.float32)
    step = make_train_step(
        model,
        optimizer,
        distill=lambda images: lambda x: distillation.loss(x, targets, 1.0),
        distill_weight=weight,
    )
    new, _ = jax.jit(step)(state, batch)
    x = images.reshape(8, -1) / 255
    kernel = np.asarray(state.params["Dense_0"]["kernel"], np.float64)
    probabilities = np.asarray(jax.nn.softmax(x @ kernel.T))
    mixed = weight * targets + (1 - weight) * np.eye(10)[np.arange(8)]
    expected = kernel - 0.5 * (probabilities - mixed).T @ x / 8
    np.testing.assert_allclose(new.params["Dense_0"]["kernel"], expected, atol=1e-5)


def test_weight_and_temperature_decide_what_a_run_learns(teachers, tmp_path):
    """Seen in the validation loss, of labels alone, as it is without a teacher."""
    ways = [
        {},
        dict(teacher=str(teachers[0]), distill_weight=1.0, temperature=1.0),
        dict(teacher=str(teachers[0]), distill_weight=1.0, temperature=4.0),
    ]
    losses = []
    for i, way in enumerate(ways):
        config = make_config("linear", "digits", epochs=1, num_devices=1, **way)
        train_and_evaluate(config, tmp_path / str(i))
        [epoch] = records.read_metrics(tmp_path / str(i))
        losses.append(epoch["validation_loss"])
    alone, student, softer = losses
    assert student != pytest.approx(alone, rel=1e-3)
    assert softer != pytest.approx(student, rel=1e-3)


@pytest.mark.slow
def test_a_student_comes_closer_to_its_teacher(teachers, tmp_path):
    """Than the same run without it, after as many steps."""
    settings = dict(epochs=4, distill_weight=1.0, temperature=1.0)
    train_and_evaluate(make(teachers[:1], **settings), tmp_path / "student")
    train_and_evaluate(make([], epochs=4), tmp_path / "alone")
    told, student, alone = (
        records.read_predictions(x).probabilities
        for x in (teachers[0], tmp_path / "student", tmp_path / "alone")
    )

    def distance(probabilities):
        return -(told * np.log(probabilities)).sum(-1).mean()

    assert distance(student) < distance(alone)


def test_the_record_says_who_taught(teachers, whole):
    stored = records.read_config(whole)
    assert stored.settings["teacher"] == ",".join(map(str, teachers))
    members = teacher.load(make(teachers))
    assert stored.facts.teacher_sha256 == teacher.sha256(members)
    assert stored.facts.teacher_sha256 != teacher.sha256(members[::-1])


def test_a_stopped_run_goes_on_to_the_same_bits(teachers, whole, tmp_path):
    train_until(lambda losses, done: done >= 20, make(teachers), tmp_path / "run")
    train_and_evaluate(make(teachers), tmp_path / "run")
    assert_same_run(tmp_path / "run", whole)


def test_the_same_on_one_device(teachers, whole, tmp_path):
    train_and_evaluate(make(teachers, num_devices=1), tmp_path / "run")
    one, two = (records.read_metrics(x) for x in (tmp_path / "run", whole))
    for ours, theirs in zip(one, two, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-4)


def test_a_run_needs_its_teachers_until_it_is_complete(teachers, tmp_path):
    folder = shutil.copytree(teachers[0], tmp_path / "teacher")
    config = make([folder], epochs=1)
    train_until(lambda losses, done: True, config, tmp_path / "run")
    shutil.rmtree(folder)
    with pytest.raises(RecordsError, match="--teacher=.*teacher holds no run: give"):
        train_and_evaluate(config, tmp_path / "run")
    shutil.copytree(teachers[1], folder)
    with pytest.raises(RecordsError, match="another run .--teacher=.*weights of SHA-"):
        train_and_evaluate(config, tmp_path / "run")
    shutil.rmtree(folder)
    shutil.copytree(teachers[0], folder)
    train_and_evaluate(config, tmp_path / "run")
    result = records.read_result(tmp_path / "run")
    shutil.rmtree(folder)
    assert train_and_evaluate(config, tmp_path / "run") == result
    with pytest.raises(RecordsError, match="another run .--teacher=.*no --teacher her"):
        train_and_evaluate(make([], epochs=1), tmp_path / "run")


@pytest.mark.parametrize("flag", ["teacher", "init_from"])
def test_a_run_does_not_replace_what_it_learns_from(flag, teachers, tmp_path):
    own = shutil.copytree(teachers[0], tmp_path / "own")
    others = {"teacher": f"{teachers[1]},{own}", "init_from": str(own)}
    config = make_quick(seed=8, **{flag: others[flag]})
    with pytest.raises(RecordsError, match=f"--{flag}=.*own is the folder of this run"):
        train_and_evaluate(config, tmp_path / "own", overwrite=True)
    assert records.read_result(own) == records.read_result(teachers[0])


def test_teachers_of_other_classes_are_refused(teachers, tmp_path):
    config = make_config("mlp", "digits", epochs=1, teacher=str(teachers[0]))
    dataset, members = load_data(config), teacher.load(config)
    assert teacher.fit(members, config, dataset) is not None
    for change in (
        dict(class_names=dataset.class_names[:-1]),
        dict(train_images=np.zeros((2, 20, 24, 1), np.uint8)),
    ):
        with pytest.raises(ConfigError, match="--teacher=.*give a run on the same dat"):
            teacher.fit(members, config, dataset._replace(**change))


def test_vectorized_runs_have_no_teacher(teachers):
    with pytest.raises(ConfigError, match="--teacher=.*: vectorized runs have no ot"):
        VectorizedRuns([make(teachers)])


@pytest.mark.slow
def test_the_command_takes_relative_folders(teachers, forked, tmp_path):
    shutil.copytree(teachers[0], tmp_path / "a")
    shutil.copytree(teachers[1], tmp_path / "b")
    arguments = ("--model=linear", "--dataset=digits", "--epochs=1", "--workdir=run")
    done = forked(*arguments, "--teacher=a,b", cwd=tmp_path)
    assert done.code == 0, done.errors
    stored = records.read_config(tmp_path / "run").settings["teacher"]
    assert stored == f"{tmp_path}/a,{tmp_path}/b"
    done = forked(*arguments, "--teacher=a,c", "--overwrite", cwd=tmp_path)
    assert done.code == 1
    assert "--teacher=c holds no run" in error_line(done.errors).replace(
        f"{tmp_path}/", ""
    )
    assert records.read_result(tmp_path / "run"), "nothing was lost"
