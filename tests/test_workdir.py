import pytest
from test_records import EPOCH

from mnist_jax.storage import records, workdir

OLD, NEW = ({"model": "mlp", "dataset": "digits", "seed": seed} for seed in (1, 2))


def test_overwriting_removes_the_run_and_nothing_else(tmp_path):
    records.write_config(tmp_path, OLD, "ab12")
    records.write_metrics(tmp_path, [EPOCH])
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    workdir.initialise(tmp_path, NEW, "cd34", overwrite=True)
    assert records.read_config(tmp_path) == (NEW, "cd34")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["config.json", "notes.txt"]


def test_a_workdir_that_is_a_file_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(records.RecordsError, match="--workdir=.*cannot be written"):
        workdir.initialise(path, NEW, "cd34", overwrite=True)
    assert path.read_text() == "mine"


def test_checkpoints_of_an_unknown_run_are_not_taken_for_ones_own(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(records.RecordsError, match="checkpoints without a config.json"):
        workdir.initialise(tmp_path, NEW, "cd34", overwrite=False)
    workdir.initialise(tmp_path, NEW, "cd34", overwrite=True)
    workdir.initialise(tmp_path, NEW, "cd34", overwrite=False)
    assert records.read_config(tmp_path) == (NEW, "cd34")


def test_a_locked_workdir_names_the_process_that_holds_it(tmp_path):
    with workdir.lock(tmp_path / "run"):
        with pytest.raises(records.RecordsError, match="in use by process .*--workdir"):
            with workdir.lock(tmp_path / "run"):
                pass
    with workdir.lock(tmp_path / "run"):
        pass
