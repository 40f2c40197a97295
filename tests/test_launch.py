"""The program as a person types it: real processes, real files, real signals."""

import json
import re
import shutil
import signal

import numpy as np
import pytest
from PIL import Image
from runs_of_launch import assert_same_run, error_line, launch, start

from mnist_jax import datasets, records

FIGURES = {"samples", "curves", "confusion_matrix", "predictions", "mistakes"}
SMALL = ("--model=mlp", "--dataset=digits", "--epochs=3", "--hidden_sizes=32")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(folder, workdir, stdout, stderr) of a finished run under the default names."""
    folder = tmp_path_factory.mktemp("trained")
    output, errors = launch(*SMALL, cwd=folder)
    return folder, folder / "runs/digits-mlp-0", output, errors


def test_training_ends_with_records_and_figures(trained):
    _, workdir, output, errors = trained
    result = json.loads((workdir / "result.json").read_text())
    assert f"test accuracy {result['test_accuracy']:.2%}" in output
    assert "397 test images of digits" in output
    figures = {path.stem for path in (workdir / "figures").glob("*.png")}
    assert figures == FIGURES
    # Off a terminal: one plain line per epoch.
    assert len(re.findall(r"^epoch \d/3  loss .*images/s.*left$", errors, re.M)) == 3
    assert "Traceback" not in errors


def test_the_same_command_again_says_that_the_run_is_complete(trained):
    folder, workdir, _, _ = trained
    before = (workdir / "result.json").read_bytes()
    output, _ = launch(*SMALL, cwd=folder)
    assert "was complete before" in output and "--overwrite" in output
    assert (workdir / "result.json").read_bytes() == before


def test_other_settings_are_refused_in_the_same_workdir(trained):
    folder, _, _, _ = trained
    _, errors = launch(*SMALL, "--learning_rate=0.01", cwd=folder, code=1)
    assert "error: " in errors and "holds another run (--learning_rate=0.001" in errors
    assert "Traceback" not in errors


def test_evaluate_gives_the_recorded_score(trained):
    folder, workdir, _, _ = trained
    result = records.read_result(workdir)
    output, _ = launch("--mode=evaluate", f"--workdir={workdir}", cwd=folder)
    assert (
        f"test accuracy {result['test_accuracy']:.2%}, loss {result['test_loss']:.4f} "
        "on 397 images of digits" in output
    )
    last = records.read_metrics(workdir)[-1]["validation_accuracy"]
    assert f"validation accuracy {last:.2%}" in output


def test_plot_draws_again_from_the_records_alone(trained, tmp_path):
    folder, workdir, _, _ = trained
    figures = workdir / "figures"
    before = {path.name: path.read_bytes() for path in figures.iterdir()}
    for path in figures.iterdir():
        path.unlink()
    launch(
        "--mode=plot", f"--workdir={workdir}", cwd=folder, TFDS_DATA_DIR=str(tmp_path)
    )
    assert {path.name: path.read_bytes() for path in figures.iterdir()} == before
    assert not any(tmp_path.iterdir()), "no data set was read"


def test_predict_classifies_a_persons_files(trained, tmp_path):
    folder, workdir, _, _ = trained
    dataset = datasets.load("digits")
    predictions = records.read_predictions(workdir)
    sure = np.argsort(-predictions.probabilities.max(1))[:3]
    paths = []
    for i in sure:
        # Dark on light, enlarged, off centre, under a name with a space.
        digit = Image.fromarray(255 - dataset.test_images[i, ..., 0])
        page = Image.new("L", (300, 220), 255)
        page.paste(digit.resize((140, 140), Image.Resampling.BICUBIC), (130, 50))
        paths.append(tmp_path / f"digit {i}.png")
        page.save(paths[-1])
    names = ",".join(map(str, paths))
    output, _ = launch(
        "--mode=predict", f"--workdir={workdir}", f"--images={names}", cwd=folder
    )
    for path, i in zip(paths, sure, strict=True):
        answer = predictions.probabilities[i].argmax()
        assert f"{path}: {answer} (" in output
    assert (workdir / "figures/images.png").exists()


def test_a_terminal_without_the_letters_of_a_name_serves(trained, tmp_path):
    folder, workdir, _, _ = trained
    image = datasets.load("digits").test_images[0, ..., 0]
    Image.fromarray(image).save(tmp_path / "größe.png")
    output, _ = launch(
        "--mode=predict", f"--workdir={workdir}", "--images=größe.png",
        cwd=tmp_path, PYTHONIOENCODING="ascii",
    )  # fmt: skip
    assert output.startswith("gr\\xf6\\xdfe.png: ")


def test_a_platform_that_is_not_there_is_told(tmp_path):
    _, errors = launch("--dataset=digits", cwd=tmp_path, code=1, JAX_PLATFORMS="tpu")
    line = error_line(errors)
    assert "JAX_PLATFORMS=tpu: JAX finds no such device" in line and "unset" in line
    assert not any(tmp_path.iterdir())


def test_a_terminated_run_goes_on_to_the_same_bits(trained, tmp_path):
    _, undisturbed, _, _ = trained
    arguments = (*SMALL, f"--workdir={tmp_path / 'run'}")
    process = start(*arguments, cwd=tmp_path)
    for line in process.stderr:
        if line.startswith("epoch 1/3"):
            process.send_signal(signal.SIGTERM)
            break
    _, errors = process.communicate(timeout=120)
    # Small as it is, the run may be over before the signal is looked at.
    if process.returncode != 0:
        assert process.returncode == 128 + signal.SIGTERM
        assert "the same command, without --overwrite, goes on from there" in errors
        assert not (tmp_path / "run/result.json").exists()
        launch(*arguments, cwd=tmp_path)
    assert_same_run(tmp_path / "run", undisturbed)


def test_a_damaged_result_can_be_overwritten_as_its_message_says(trained, tmp_path):
    workdir = shutil.copytree(trained[1], tmp_path / "run")
    (workdir / "result.json").write_text("{")
    _, errors = launch(*SMALL, "--workdir=run", cwd=tmp_path, code=1)
    assert "result.json is damaged" in errors and "--overwrite" in errors
    launch(*SMALL, "--workdir=run", "--overwrite", cwd=tmp_path)
    assert_same_run(workdir, trained[1])


def test_the_libraries_own_logs_stay_off_the_terminal(trained):
    _, _, output, errors = trained
    assert not re.search(r"^[IW]\d{4} ", output + errors, re.M), errors


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--model=transformer"], "linear|mlp|cnn|lenet5|resnet|rnn|lstm|gru"),
        (["--workdir=/dev/null/run"], "--workdir=/dev/null/run"),
    ],
)
def test_bad_input_is_told_in_one_line(arguments, expected, tmp_path):
    """As for all that test_bad_input.py has, which starts no new process for each."""
    output, errors = launch(*arguments, "--dataset=digits", cwd=tmp_path, code=1)
    assert expected in errors
    assert "Traceback" not in output + errors
    told = [line for line in errors.splitlines() if expected in line]
    assert len(told) == 1
    assert not any(tmp_path.iterdir()), "nothing was written"
