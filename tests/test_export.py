"""Exported files: what they hold; damage, missing libraries, wrong programs."""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import onnx
import pytest
from exported_models import assert_close, make, make_images
from safetensors import safe_open

from mnist_jax import commands, data, predict, train_step, training
from mnist_jax.config import make_config
from mnist_jax.export import errors, files, onnx_model, onnx_ops, run
from mnist_jax.settings import ConfigError
from mnist_jax.storage import records
from mnist_jax.storage import workdir as workdir_lib
from mnist_jax.storage.checkpoints import Checkpoints

ROOT = Path(__file__).resolve().parents[1]
ALL = ["SHA256SUMS", *run.NAMES]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data_dir):
    """A complete run and its export; not to be changed."""
    workdir = tmp_path_factory.mktemp("export") / "run"
    config = make_config(
        "linear", "digits", epochs=2, num_devices=1, data_dir=str(data_dir)
    )
    training.train_and_evaluate(config, workdir)
    return workdir, files.export_run(workdir)


@pytest.fixture
def workdir(trained, tmp_path):
    """A copy of the run and of its export."""
    shutil.copytree(trained[0], tmp_path / "run")
    return tmp_path / "run"


def contents(folder):
    if not folder.exists():
        return {}
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def repeatable(folder):
    """But for model.safetensors, whose metadata have no order, and its sum."""
    found = contents(folder)
    del found["model.safetensors"], found["SHA256SUMS"]
    return found


def test_a_run_is_exported(trained):
    workdir, exported = trained
    assert exported.folder == workdir / "export" and exported.is_complete
    assert exported.onnx_error is None
    found = contents(exported.folder)
    assert sorted(found) == sorted(ALL)
    assert exported.sizes == {name: len(content) for name, content in found.items()}
    sums = [f"{hashlib.sha256(found[x]).hexdigest()}  {x}\n" for x in run.NAMES]
    assert found["SHA256SUMS"].decode() == "".join(sums)
    assert not list(workdir.glob(".export*"))
    for content in found.values():
        assert str(ROOT).encode() not in content, (
            "where it was made is nobody's concern"
        )


def test_the_check_has_test_images_and_the_logits_of_the_run(trained):
    workdir, exported = trained
    kept = records.read_predictions(workdir)
    with np.load(exported.folder / "check.npz") as arrays:
        images, logits, names = (arrays[x] for x in ("images", "logits", "class_names"))
    shown = min(32, len(kept.shown))
    np.testing.assert_array_equal(images[:shown, ..., 0], kept.shown_images[:32])
    assert len(images) == len(logits) == 32
    probabilities = kept.probabilities[kept.shown[:32]]
    np.testing.assert_allclose(
        np.asarray(jax.nn.softmax(logits[:shown])), probabilities, atol=1e-6
    )
    assert tuple(names) == data.DATASETS["digits"].class_names


def test_files_say_what_they_are(trained):
    workdir, exported = trained
    with safe_open(exported.folder / "model.safetensors", "np") as weights:
        metadata = weights.metadata()
        assert set(weights.keys()) == {"Dense_0/kernel", "Dense_0/bias"}
        assert weights.get_tensor("Dense_0/kernel").shape == (10, 784)
    result = records.read_result(workdir)
    assert float(metadata["test_accuracy"]) == result["test_accuracy"]
    settings = json.loads(metadata["settings"])
    assert settings["model"] == "linear" and settings["epochs"] == 2
    assert not {"data_dir", "raw_dir"} & {*settings}, "folders are nobody's business"
    assert json.loads(metadata["image_shape"]) == [28, 28, 1]
    assert json.loads(metadata["class_names"]) == list(map(str, range(10)))
    assert {"jax", "flax", "mnist_jax"} <= {*json.loads(metadata["versions"])}
    assert metadata["schema"] == "1" and metadata["precision"] == "float32"
    assert "light strokes on black" in metadata["preprocessing"]
    model = onnx.load(exported.folder / "model.onnx")
    assert {one.key: one.value for one in model.metadata_props} == metadata


def run_script(folder, *arguments):
    return subprocess.run(
        [sys.executable, "run.py", *arguments],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_run_py_classifies_images_without_the_package(workdir, tmp_path):
    folder = (workdir / "export").rename(tmp_path / "alone")
    test_images = data.load("digits").test_images
    np.save(folder / "a.npy", test_images)
    np.save(folder / "b.npy", test_images[..., 0])
    done = run_script(folder, "a.npy", "b.npy")
    assert "mnist_jax" not in (folder / "run.py").read_text()
    first, *lines = done.stdout.splitlines()
    assert "all files are whole" in first
    labels = predict.predict(workdir, test_images).argmax(-1)
    assert lines == [f"a.npy {i}: {label}" for i, label in enumerate(labels)]
    assert done.returncode == 1
    told = "error: b.npy: uint8 [397, 28, 28], expected uint8 [N, 28, 28, 1]\n"
    assert done.stderr == told


@pytest.mark.parametrize("name", ALL)
def test_a_changed_byte_is_told(workdir, name):
    path = workdir / "export" / name
    content = bytearray(path.read_bytes())
    run.check_sums(path.parent)
    places = range(len(content)) if name == run.SUMS else (0, len(content) // 2, -1)
    for place in places:
        content[place] ^= 1
        path.write_bytes(content)
        with pytest.raises(ValueError, match="as it was written: export again") as told:
            run.load(path.parent)
        assert "\n" not in str(told.value)
        assert name == run.SUMS or name in str(told.value)
        content[place] ^= 1


def test_run_py_ends_with_one_line(workdir):
    path = workdir / "export/model.stablehlo"
    path.write_bytes(path.read_bytes()[:-1])
    done = run_script(path.parent)
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ") and "model.stablehlo is not as it was" in line


def test_a_program_of_other_weights_is_not_run(workdir):
    """Sums that are right do not make the model so."""
    folder = workdir / "export"
    with np.load(folder / "check.npz") as arrays:
        changed = {**arrays, "logits": arrays["logits"] * 1.001}
    np.savez(folder / "check.npz", **changed)
    (folder / run.SUMS).write_text("".join(run.sums(folder).values()))
    with pytest.raises(ValueError, match="logits differ from the run's by 1e-03"):
        run.load(folder)


def test_a_run_that_is_replaced_takes_its_export_away(workdir):
    workdir_lib.initialise(workdir, {"model": "mlp"}, "ab12", overwrite=True)
    assert not (workdir / "export").exists()


def test_another_export_replaces_the_first(workdir):
    before = repeatable(workdir / "export")
    (workdir / "export/model.onnx").write_bytes(b"old")
    files.export_run(workdir)
    assert repeatable(workdir / "export") == before
    run.check_sums(workdir / "export")


def wrong_weights(make_file):
    """`make_file` of a program, of other weights."""

    def make_wrong(traced, *args):
        params = {name: 1.01 * x for name, x in traced.params.items()}
        return make_file(traced._replace(params=params), *args)

    return make_wrong


@pytest.mark.parametrize("had_one", [True, False])
@pytest.mark.parametrize("name", ["model.stablehlo", "model.safetensors"])
def test_what_does_not_give_the_runs_logits_is_not_written(
    workdir, monkeypatch, name, had_one
):
    if not had_one:
        shutil.rmtree(workdir / "export")
    before = contents(workdir / "export")
    if name == "model.stablehlo":
        monkeypatch.setattr(files, "to_stablehlo", wrong_weights(files.to_stablehlo))
    else:
        monkeypatch.setattr(
            files,
            "to_safetensors",
            lambda params, metadata, to_bytes=files.to_safetensors: to_bytes(
                {name: 1.01 * x for name, x in params.items()}, metadata
            ),
        )
    with pytest.raises(errors.ExportError, match=f"{name} is not written .logits di"):
        files.export_run(workdir)
    assert contents(workdir / "export") == before
    assert not list(workdir.glob(".export*"))


def break_onnx(monkeypatch, how):
    if how == "no such operation":
        monkeypatch.delitem(onnx_ops.OPS, "dot_general")
        return "model.onnx: the model uses 'dot_general' of JAX, which has no"
    if how == "other weights":
        monkeypatch.setattr(onnx_model, "to_onnx", wrong_weights(onnx_model.to_onnx))
        return "model.onnx is not written .logits differ from the run's by 1e-02"
    monkeypatch.setitem(
        onnx_ops.OPS, "dot_general", lambda graph, *_: graph.emit("Gamm", "images")
    )
    return "model.onnx is not written .*: use model.stablehlo"


@pytest.mark.parametrize(
    "how", ["no such operation", "other weights", "no such node of ONNX"]
)
def test_where_the_onnx_fails_the_other_files_are_written(
    workdir, monkeypatch, capsys, how
):
    told = break_onnx(monkeypatch, how)
    with pytest.raises(errors.ExportError, match=told):
        commands.export_run(str(workdir))
    output = capsys.readouterr().out
    assert "model.stablehlo: " in output and "model.onnx" not in output
    others = sorted({*ALL} - {"model.onnx"})
    assert sorted(contents(workdir / "export")) == others, "nor is an old one left"
    run.load(workdir / "export")


def without(monkeypatch, *names):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name in names else find(name)
    )


def test_without_onnx_a_line_says_how_to_get_it(workdir, monkeypatch, capsys):
    without(monkeypatch, "onnx", "onnxruntime")
    commands.export_run(str(workdir))
    *_, last = capsys.readouterr().out.splitlines()
    assert last == "no model.onnx: it needs pip install -e '.[onnx]'"
    assert sorted(contents(workdir / "export")) == sorted({*ALL} - {"model.onnx"})
    run.load(workdir / "export")


def test_without_its_runtime_onnx_is_checked_by_the_reference(workdir, monkeypatch):
    without(monkeypatch, "onnxruntime")
    before = repeatable(workdir / "export")
    assert files.export_run(workdir).onnx_error is None
    assert repeatable(workdir / "export") == before
    monkeypatch.setattr(onnx_model, "to_onnx", wrong_weights(onnx_model.to_onnx))
    assert "logits differ" in str(files.export_run(workdir).onnx_error)


@pytest.mark.parametrize("missing", ["flatbuffers", "safetensors"])
def test_without_the_extra_a_line_says_how_to_get_it(workdir, monkeypatch, missing):
    without(monkeypatch, missing)
    told = f"--mode=export needs {missing}: pip install -e '.\\[export\\]'"
    with pytest.raises(ConfigError, match=told):
        commands.export_run(str(workdir))


def test_a_folder_that_cannot_be_written_is_told(workdir, monkeypatch):
    shutil.rmtree(workdir / "export")
    (workdir / "export").write_bytes(b"")
    told = "run/export cannot be written .*: give that folder room"
    with pytest.raises(errors.ExportError, match=told):
        files.export_run(workdir)
    assert not list(workdir.glob(".export*"))

    def refuse(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(errors.ExportError, match="(Read-only file system)"):
        files.export_run(workdir)


def save_checkpoint(workdir, config, step=3):
    """An unfinished run of a model of `MODELS`, whose weights `make` gives."""
    model, params = make(config.model)
    with Checkpoints(workdir, config.identity()) as checkpoints:
        checkpoints.save(step, params, {"step": np.int32(step), "history": {}})
    records.write_config(workdir, config.to_dict(), "ab12")
    return model, params


@pytest.mark.slow
def test_a_run_in_bfloat16_is_exported_in_float32(tmp_path):
    config = make_config("linear", "digits", precision="bfloat16")
    model, params = save_checkpoint(tmp_path, config)
    exported = files.export_run(tmp_path)
    assert not exported.is_complete and exported.onnx_error is None
    with safe_open(exported.folder / "model.safetensors", "np") as weights:
        metadata = weights.metadata()
        dtypes = {str(weights.get_tensor(name).dtype) for name in weights.keys()}
    assert metadata["precision"] == "float32; trained with matmuls of bfloat16"
    assert metadata["test_accuracy"] == "none" and dtypes == {"float32"}
    loaded, _, _ = run.load(exported.folder)
    images = make_images(5)
    expected = train_step.make_eval_step(model)(params, images)
    assert_close(np.asarray(loaded(images)), np.asarray(expected))
    narrow = predict.load_classifier(tmp_path).classify(images)
    assert np.abs(narrow - expected).max() > 1e-3, "or the run is no bfloat16 run"


def test_launch_exports(run_launch, workdir):
    output, _ = run_launch("--mode=export", f"--workdir={workdir}", cwd=workdir)
    lines = [line.partition(": ")[0] for line in output.splitlines()]
    assert sorted(lines) == sorted(f"{workdir}/export/{name}" for name in ALL)
    run.check_sums(Path(workdir / "export"))


@pytest.mark.slow
def test_exports_need_no_more_than_they_say(workdir, tmp_path):
    """In fresh environments; needs a package index."""
    images = data.load("digits").test_images
    labels = predict.predict(workdir, images).argmax(-1)
    folder = (workdir / "export").rename(tmp_path / "alone")
    np.save(folder / "a.npy", images)
    by_onnx = (
        "import numpy, onnxruntime; images = numpy.load('a.npy'); "
        "session = onnxruntime.InferenceSession('model.onnx'); "
        "[logits] = session.run(None, {'images': images}); "
        "[print(f'a.npy {i}: {k}') for i, k in enumerate(logits.argmax(-1))]"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    for packages, command in (
        (["jax", "jaxlib!=0.10.2", "flatbuffers"], ["run.py", "a.npy"]),
        (["onnxruntime"], ["-c", by_onnx]),
    ):
        python = tmp_path / packages[0] / "bin/python"
        made = [sys.executable, "-m", "venv", tmp_path / packages[0]]
        subprocess.run(made, check=True, env=environment, timeout=300)
        install = [python, "-m", "pip", "install", "-q", *packages]
        subprocess.run(install, check=True, env=environment, timeout=300)
        output = subprocess.run(
            [python, *command], cwd=folder, env=environment, check=True,
            capture_output=True, text=True, timeout=300,
        ).stdout  # fmt: skip
        lines = [line for line in output.splitlines() if line.startswith("a.npy ")]
        assert lines == [f"a.npy {i}: {label}" for i, label in enumerate(labels)]
