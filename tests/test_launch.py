"""The program as a person types it: real processes, real files, real signals."""

import json
import re
import shutil
import signal

import numpy as np
import pytest
from PIL import Image
from runs_of_launch import ROOT, assert_same_run, error_line, finish, launch, start
from test_signals import HOOK, TRAINING

from mnist_jax import data
from mnist_jax.storage import records

FIGURES = {"samples", "curves", "confusion_matrix", "predictions", "mistakes"}
LINEAR = ("--model=linear", "--dataset=digits", "--epochs=40")
SMALL = ("--model=mlp", "--dataset=digits", "--epochs=3", "--hidden_sizes=32")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(workdir, stdout, stderr) of a finished run; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    output, errors = launch(*SMALL, cwd=folder)
    return folder / "runs/digits-mlp-0", output, errors


@pytest.fixture
def workdir(trained, tmp_path):
    """A copy of that run, under its default name in `tmp_path`."""
    return shutil.copytree(trained[0], tmp_path / "runs/digits-mlp-0")


def test_training_ends_with_records_and_figures(trained):
    workdir, output, errors = trained
    result = json.loads((workdir / "result.json").read_text())
    assert f"test accuracy {result['test_accuracy']:.2%}" in output
    assert "397 test images of digits" in output
    figures = {path.stem for path in (workdir / "figures").glob("*.png")}
    assert figures == FIGURES
    # Off a terminal: one plain line per epoch.
    assert len(re.findall(r"^epoch \d/3  loss .*images/s.*left$", errors, re.M)) == 3
    assert "Traceback" not in errors


def test_the_same_command_again_says_that_the_run_is_complete(
    workdir, tmp_path, run_launch
):
    before = (workdir / "result.json").read_bytes()
    output, _ = run_launch(*SMALL, cwd=tmp_path)
    assert "was complete before" in output and "--overwrite" in output
    assert (workdir / "result.json").read_bytes() == before


def test_evaluate_gives_the_recorded_score(workdir, tmp_path, run_launch):
    result = records.read_result(workdir)
    output, _ = run_launch("--mode=evaluate", f"--workdir={workdir}", cwd=tmp_path)
    assert "unfinished" not in output
    assert (
        f"test accuracy {result['test_accuracy']:.2%}, loss {result['test_loss']:.4f} "
        "on 397 images of digits" in output
    )
    last = records.read_metrics(workdir)[-1]["validation_accuracy"]
    assert f"validation accuracy {last:.2%}" in output


def test_plot_draws_again_from_the_records_alone(workdir, tmp_path, run_launch):
    figures, data_dir = workdir / "figures", tmp_path / "data"
    data_dir.mkdir()
    before = {path.name: path.read_bytes() for path in figures.iterdir()}
    for path in figures.iterdir():
        path.unlink()
    printed, _ = run_launch(
        "--mode=plot", f"--workdir={workdir}", cwd=tmp_path, TFDS_DATA_DIR=str(data_dir)
    )
    after = {path.name: path.read_bytes() for path in figures.iterdir()}
    assert {name: after[name] for name in before} == before
    # Those that the checkpoint computes come last.
    assert after.keys() - before.keys() == {"saliency.png"}
    assert printed.splitlines()[-1].endswith("figures/saliency.png")
    assert not any(data_dir.iterdir()), "no data set was read"


def test_predict_classifies_a_persons_files(workdir, tmp_path, run_launch):
    test_images = data.load("digits").test_images
    predictions = records.read_predictions(workdir)
    sure = np.argsort(-predictions.probabilities.max(1))[:3]
    paths = []
    for i in sure:
        # Dark on light, enlarged, off centre, under a name with a space.
        digit = Image.fromarray(255 - test_images[i, ..., 0])
        page = Image.new("L", (300, 220), 255)
        page.paste(digit.resize((140, 140), Image.Resampling.BICUBIC), (130, 50))
        paths.append(tmp_path / f"digit {i}.png")
        page.save(paths[-1])
    names = ",".join(map(str, paths))
    output, _ = run_launch(
        "--mode=predict", f"--workdir={workdir}", f"--images={names}", cwd=tmp_path
    )
    for path, i in zip(paths, sure, strict=True):
        predicted = predictions.probabilities[i].argmax()
        assert f"{path}: {predicted} (" in output
    assert (workdir / "figures/images.png").exists()


def test_a_terminal_without_the_letters_of_a_name_serves(workdir, tmp_path):
    image = data.load("digits").test_images[0, ..., 0]
    Image.fromarray(image).save(tmp_path / "größe.png")
    output, _ = launch(
        "--mode=predict", f"--workdir={workdir}", "--images=größe.png",
        cwd=tmp_path, PYTHONIOENCODING="ascii",
    )  # fmt: skip
    assert output.startswith("gr\\xf6\\xdfe.png: ")


def test_a_platform_that_is_not_there_is_told(tmp_path):
    """In one line; nothing is written."""
    _, errors = launch("--dataset=digits", cwd=tmp_path, code=1, JAX_PLATFORMS="tpu")
    line = error_line(errors)
    assert "JAX_PLATFORMS=tpu: JAX finds no such device" in line and "unset" in line
    assert not any(tmp_path.iterdir())


@pytest.fixture(scope="module")
def terminated(tmp_path_factory):
    """(folder, stderr) of a run, in `run`, that SIGTERM ended after an epoch.

    Not to be changed. The signal comes at an exact moment (see test_signals.py): the
    run is over in tenths of a second, sooner than another process may find the time.
    """
    folder = tmp_path_factory.mktemp("terminated")
    process = start(
        *LINEAR, "--workdir=run", cwd=folder, PYTHONPATH=f"{HOOK}:{ROOT}",
        INTERRUPT=json.dumps([signal.SIGTERM, *TRAINING["an epoch"]]),
        INTERRUPT_SENT=str(folder / "sent"),
    )  # fmt: skip
    [(status, _, errors)] = finish([process])
    assert status == 128 + signal.SIGTERM, errors
    assert not (folder / "run/result.json").exists()
    return folder, errors


def test_a_terminated_run_says_how_to_go_on(terminated):
    _, errors = terminated
    line = errors.splitlines()[-1]
    assert line.startswith("stopped by SIGTERM after step ")
    assert "the run is saved in run" in line
    assert "the same command, without --overwrite, goes on from there" in line


def test_evaluation_says_that_a_run_is_unfinished(terminated, run_launch):
    folder, _ = terminated
    output, _ = run_launch("--mode=evaluate", "--workdir=run", cwd=folder)
    unfinished, validation = output.splitlines()
    done = len(records.read_metrics(folder / "run"))
    assert f"unfinished: {done} of 40 epochs" in unfinished
    assert re.match(r"validation accuracy .* on 140 images of digits", validation)


def test_a_terminated_run_goes_on_to_the_same_bits(terminated, tmp_path, run_launch):
    folder, _ = terminated
    shutil.copytree(folder / "run", tmp_path / "stopped")
    for name in ("stopped", "whole"):
        run_launch(*LINEAR, f"--workdir={name}", cwd=tmp_path)
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.slow
def test_a_damaged_result_can_be_overwritten_as_its_message_says(
    trained, workdir, tmp_path, run_launch
):
    (workdir / "result.json").write_text("{")
    _, errors = run_launch(*SMALL, cwd=tmp_path, code=1)
    assert "result.json is damaged" in errors and "--overwrite" in errors
    run_launch(*SMALL, "--overwrite", cwd=tmp_path)
    assert_same_run(workdir, trained[0])


def test_the_libraries_own_logs_stay_off_the_terminal(trained):
    _, output, errors = trained
    assert not re.search(r"^[IW]\d{4} ", output + errors, re.M), errors
