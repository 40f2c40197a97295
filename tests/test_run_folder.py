import pytest
from test_records import EPOCH

from mnist_jax import records, run_folder


def test_overwriting_removes_the_run_and_nothing_else(tmp_path):
    records.write_config(tmp_path, {"old": 1})
    records.write_metrics(tmp_path, [EPOCH])
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    run_folder.start(tmp_path, {"new": 2}, overwrite=True)
    assert records.read_config(tmp_path) == {"new": 2}
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["config.json", "notes.txt"]


def test_a_workdir_that_is_a_file_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(records.RecordsError, match="--workdir=.*cannot be written"):
        run_folder.start(path, {}, overwrite=True)
    assert path.read_text() == "mine"


def test_checkpoints_of_an_unknown_run_are_not_taken_for_ones_own(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(records.RecordsError, match="checkpoints without a config.json"):
        run_folder.start(tmp_path, {}, overwrite=False)
    run_folder.start(tmp_path, {"new": 2}, overwrite=True)
    run_folder.start(tmp_path, {"new": 2}, overwrite=False)
    assert records.read_config(tmp_path) == {"new": 2}
