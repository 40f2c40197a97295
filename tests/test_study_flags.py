"""Wrong flags of the studies."""

import pytest

WHOLE = "expected whole numbers from 0 to 4294967295"
RISING = "expected rising whole numbers from 1 to 5"


@pytest.mark.parametrize(
    "name, argument, expected",
    [
        ("compare_models", "--models=linear", "--models: give two or more"),
        ("compare_models", "--models=linear,tree", "--models=tree: expected some of"),
        ("compare_models", "--seeds=0,x", "--seeds=0,x: expected whole numbers"),
        ("compare_models", "--seeds=", "--seeds=: expected whole numbers"),
        ("compare_models", "--datasets=cifar", "--datasets=cifar: expected some of"),
        ("compare_models", "--epochs=0", "--epochs=0: expected a whole number"),
        ("reproduce_notebooks", "--seeds=0,00", "--seeds=0,00: give each once"),
        ("reproduce_notebooks", "--only=", "--only=: expected some of rows, lstm"),
        ("reproduce_notebooks", "extra", "'extra' is not a flag"),
        ("sweep", "--trials=2", "--vary is missing"),
        ("sweep", "--vary=units=8,16", "--units is not a setting of --model=mlp"),
        ("ensemble", "--preset=fast", "mlp has no such preset"),
        ("presets", "--seeds=0,x", f"--seeds=0,x: {WHOLE}"),
        ("presets", "--seeds=4294967296", WHOLE),
        ("presets", "--models=tree", "--models=tree: expected some of linear, mlp"),
        ("presets", "--dataset=auto", "--dataset=auto: give the data set"),
        ("frontier", "--models=tree", "--models=tree: expected some of linear, tiny"),
        (
            "frontier",
            "--models=mlp-distilled",
            "mlp-distilled learns from cnn: give that too",
        ),
        ("frontier", "--dataset=auto", "--dataset=auto: give the data set"),
        (
            "long_sequences",
            "--models=cnn",
            "--models=cnn: expected some of lru, mingru",
        ),
        ("long_sequences", "--sequences=rows", "expected some of pixels, permuted"),
        ("long_sequences", "--dataset=folder", "give a known one, of mnist, fashion"),
        ("long_sequences", "--epochs=0", "--epochs=0: expected a whole number"),
        ("select_recipe", "--folds=5,2", f"error: --folds=5,2: {RISING}"),
        ("select_recipe", "--folds=6", f"error: --folds=6: {RISING}"),
        (
            "select_recipe",
            "--candidate=seed=1",
            "error: --candidate=seed=1: seed=1 is no setting that can be",
        ),
        (
            "select_recipe",
            "--candidate=dropout=0 dropout=0.1",
            "dropout is given twice",
        ),
        ("select_recipe", "--candidate=dropout='0", "close the quotes"),
        ("select_recipe", "--dataset=auto", "--dataset=auto: give the data set"),
        ("precision", "--dataset=auto", "--dataset=auto: give the data set"),
        ("batch_sizes", "--preset=best", "--preset=best: it holds out no images"),
    ],
)
def test_wrong_input_is_told_in_one_line(name, argument, expected, tmp_path, run_study):
    _, errors = run_study(f"accuracy.{name}", argument, cwd=tmp_path, code=1)
    assert expected in errors and errors.startswith("error: "), errors
    assert len(errors.splitlines()) == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name, flags",
    [
        ("accuracy.presets", ("--seeds", "--workdir", "--data_dir", "--models")),
        ("speed.precision", ("--rounds", "--torch_python", "--dataset")),
        ("speed.compile_for_accelerators", ("--tpu_python",)),
        ("speed.profile_steps", ("--models", "--dataset")),
    ],
)
def test_help_shows_the_flags_that_studies_share(name, flags, tmp_path, run_study):
    output, _ = run_study(name, "--help", cwd=tmp_path, code=1)
    for flag in flags:
        assert f"{flag}:" in output or f"{flag[:2]}[no]{flag[2:]}:" in output, flag
