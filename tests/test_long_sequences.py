"""The study of images that are read pixel by pixel."""

import json

import numpy as np
import pytest

from experiments.accuracy.sequences import remembering
from experiments.common import sequence_recipes as recipes
from mnist_jax.models.recurrent import as_sequence


@pytest.mark.parametrize("sequence", recipes.SEQUENCES)
def test_the_order_is_that_in_which_the_model_reads(sequence):
    image = np.arange(12, dtype=np.float32).reshape(1, 3, 4, 1)
    read = np.asarray(as_sequence(image, sequence)).ravel()
    np.testing.assert_array_equal(read, remembering.reading_order(sequence, 12))


@pytest.mark.parametrize("model", ["gru", pytest.param("lru", marks=pytest.mark.slow)])
def test_models_have_about_as_many_parameters(model):
    units = recipes.matched_units(model)
    found = [recipes.count_params(model, n) for n in (units, units + 1)]
    assert 0.9 * recipes.NUM_PARAMS < found[0] <= recipes.NUM_PARAMS < found[1]
    config = recipes.make(model, "mnist", "permuted", "elastic", seed=3)
    assert (config.units, config.sequence, config.seed) == (units, "permuted", 3)


@pytest.mark.slow
def test_the_study(tmp_path, run_study):
    arguments = ("--dataset=digits", "--epochs=1", "--models=mingru", "--seeds=0")
    arguments += ("--sequences=permuted", "--augments=none,elastic")
    output, errors = run_study("accuracy.long_sequences", *arguments, cwd=tmp_path)
    folder = tmp_path / "runs" / "long_sequences"
    content = json.loads((folder / "long_sequences.json").read_text())
    assert [row["augment"] for row in content["rows"]] == ["none", "elastic"]
    for row in content["rows"]:
        # The inputs of a batch of 128 sequences of 784 steps, and less than a GiB.
        assert 128 * 784 * 4 / 2**20 < row["step_mebibytes"] < 1024
    assert "test accuracy" in output and "run 2 of 2" in errors
    figures = {path.name for path in (folder / "figures").iterdir()}
    kinds = ("by_epoch", "by_minute", "gradient", "masked")
    augments = ("none", "elastic")
    assert figures == {f"{kind}-permuted-{x}.png" for kind in kinds for x in augments}
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("*/remembering.npz")}
    again, errors = run_study("accuracy.long_sequences", *arguments, cwd=tmp_path)
    assert again == output and errors == ""
    assert len(kept) == 2
    assert len(list(folder.glob("*/step_memory.npz"))) == 2
    for path, written in kept.items():
        assert path.stat().st_mtime_ns == written
