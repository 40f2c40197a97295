"""Runs and studies on a person's own images."""

import json
import os
import shutil

import numpy as np
import pytest
from image_trees import drawn, write_tree
from PIL import Image


def run(forked, cwd, *arguments, code=0, **program):
    done = forked(*arguments, cwd=cwd, TFDS_DATA_DIR=str(cwd / "data"), **program)
    assert done.code == code, done.output + done.errors
    assert "Traceback" not in done.errors
    return done.output if code == 0 else done.errors


def test_a_run_on_ones_own_images_is_used_when_they_are_gone(forked, tmp_path):
    tree = write_tree(tmp_path / "mine", ("St. 0", "一", "two"), 10)
    train = ["--dataset=folder", "--raw_dir=mine", "--model=linear", "--workdir=run",
             "--epochs=20", "--batch_size=8"]  # fmt: skip
    run(forked, tmp_path, *train)
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["class_names"] == ["St. 0", "two", "一"]
    assert result["dataset"] == "folder" and str(tree) in result["provenance"]
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["class_names"] == result["class_names"]
    assert config["image_shape"] == [28, 28, 1] and len(config["data_sha256"]) == 64

    drawn(0, 11).save(tmp_path / "a.png")
    shutil.move(tree, tmp_path / "moved")
    predicted = run(
        forked, tmp_path, "--mode=predict", "--workdir=run", "--images=a.png"
    )
    assert predicted.startswith("a.png: St. 0 (") and "一 0." in predicted
    scores = run(forked, tmp_path, "--mode=evaluate", "--workdir=run")
    assert f"test accuracy {result['test_accuracy']:.2%}" in scores
    run(forked, tmp_path, "--mode=plot", "--workdir=run")
    # Predictions need neither the prepared copy nor the end of the run.
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "run/result.json").unlink()
    assert predicted == run(
        forked, tmp_path, "--mode=predict", "--workdir=run", "--images=a.png"
    )
    told = run(forked, tmp_path, "--mode=evaluate", "--workdir=run", code=1)
    assert "no images prepared there have the SHA-256" in told

    # The same images elsewhere are the same run; changed ones are not.
    train[1] = "--raw_dir=moved"
    run(forked, tmp_path, *train)
    drawn(2, 20).save(tmp_path / "moved" / "two" / "00.png")
    told = run(forked, tmp_path, *train, code=1)
    assert "run holds another run (other data named folder, SHA-256 " in told
    told = run(
        forked, tmp_path, "--mode=evaluate", "--workdir=run", "--raw_dir=moved", code=1
    )
    assert "run holds another run (other data named folder" in told
    told = run(forked, tmp_path, *train, "--preprocess=resize", code=1)
    assert "--preprocess=strokes there, resize here; other data named folder" in told


@pytest.mark.slow
def test_a_run_on_resized_pictures_resizes_what_it_predicts(forked, tmp_path):
    rng = np.random.default_rng(0)
    for name, (low, high) in {"dark": (0, 100), "light": (150, 256)}.items():
        (tmp_path / "mine" / name).mkdir(parents=True)
        for i in range(10):
            noise = rng.integers(low, high, (40, 40), np.uint8)
            Image.fromarray(noise).save(tmp_path / "mine" / name / f"{i}.png")
    told = run(
        forked, tmp_path, "--dataset=folder", "--raw_dir=mine", "--model=linear", code=1
    )
    assert all(line.startswith("error: mine/") for line in told.splitlines())
    run(
        forked, tmp_path, "--dataset=folder", "--raw_dir=mine", "--model=linear",
        "--preprocess=resize", "--workdir=run", "--epochs=5", "--batch_size=4",
    )  # fmt: skip
    Image.new("L", (90, 90), 220).save(tmp_path / "a.png")
    predicted = run(
        forked, tmp_path, "--mode=predict", "--workdir=run", "--images=a.png"
    )
    assert predicted.startswith("a.png: light (")


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["--dataset=folder"], "--dataset=folder needs --raw_dir: give the folder"),
        (["--dataset=folder", "--raw_dir=none"], "--raw_dir=none: no such folder"),
        (
            ["--dataset=digits", "--preprocess=resize"],
            "--preprocess has no effect with --dataset=digits",
        ),
        (
            ["--dataset=folder", "--raw_dir=x", "--model=cnn", "--preset=fast"],
            "--preset=fast: cnn has no such preset for folder",
        ),
    ],
)
def test_flags_that_do_not_fit_are_one_line(forked, tmp_path, arguments, told):
    errors = run(forked, tmp_path, *arguments, code=1)
    assert errors.startswith(f"error: {told}") and errors.count("\n") == 1


@pytest.mark.parametrize(
    "study, arguments",
    [
        ("accuracy.compare_models", ["--datasets=digits,folder"]),
        ("accuracy.presets", ["--dataset=folder"]),
        ("accuracy.sweep", ["--dataset=folder", "--vary=learning_rate=1e-3,1e-2"]),
        ("accuracy.ensemble", ["--dataset=folder"]),
        ("speed.profile_steps", ["--dataset=folder"]),
    ],
)
def test_a_study_says_that_a_folder_needs_its_place(forked, tmp_path, study, arguments):
    errors = run(forked, tmp_path, *arguments, code=1, program=study)
    assert errors.startswith("error: --dataset=folder needs --raw_dir: give the folder")
    assert errors.count("\n") == 1 and not os.listdir(tmp_path)


@pytest.mark.slow
def test_a_sweep_on_a_folder_notices_that_its_images_changed(forked, tmp_path):
    write_tree(tmp_path / "mine", per_class=20)
    sweep = ["--dataset=folder", "--raw_dir=mine", "--model=linear", "--epochs=2",
             "--vary=learning_rate=1e-3,1e-2", "--workdir=sweep"]  # fmt: skip
    output = run(forked, tmp_path, *sweep, program="accuracy.sweep")
    again = "python launch.py --model=linear --dataset=folder --epochs=2 --raw_dir=mine"
    assert again in output
    drawn(0, 30).save(tmp_path / "mine/zero/00.png")
    errors = run(forked, tmp_path, *sweep, code=1, program="accuracy.sweep")
    assert "sweep.json holds another search: delete its folder" in errors
