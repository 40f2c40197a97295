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
    assert records.read_config(tmp_path)[:2] == (NEW, "cd34")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["config.json", "notes.txt"]


@pytest.mark.parametrize("name", ["figures", "result.json"])
def test_overwriting_removes_nothing_where_there_is_no_run(tmp_path, name):
    path = tmp_path / name
    path.write_text("mine") if "." in name else path.mkdir()
    with pytest.raises(records.RecordsError, match=f"holds {name}, but no run"):
        workdir.initialise(tmp_path, NEW, "cd34", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def make_run(folder):
    records.write_config(folder, OLD, "ab12")
    records.write_metrics(folder, [EPOCH])
    (folder / "checkpoints/39").mkdir(parents=True)


def test_overwriting_removes_a_link_and_not_what_it_points_to(tmp_path):
    run, album = tmp_path / "run", tmp_path / "album"
    make_run(run)
    album.mkdir()
    (album / "curves.png").write_text("mine")
    (run / "figures").symlink_to(album)
    (run / "tensorboard").symlink_to(tmp_path / "nowhere")
    workdir.initialise(run, NEW, "cd34", overwrite=True)
    assert [path.name for path in run.iterdir()] == ["config.json"]
    assert (album / "curves.png").read_text() == "mine"


@pytest.mark.parametrize("name", ["figures", "metrics.jsonl", "checkpoints/39"])
def test_what_cannot_be_overwritten_is_told_before_anything_is_removed(
    tmp_path, monkeypatch, name
):
    make_run(tmp_path)
    path = tmp_path / name
    if name == "figures":
        path.write_text("mine")
    elif name == "metrics.jsonl":
        path.unlink()
        path.mkdir()
    else:  # root may change any folder
        monkeypatch.setattr(
            workdir.os, "access", lambda folder, _: str(folder) != str(path)
        )
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(records.RecordsError, match=f"{path} (is no|must not be)"):
        workdir.initialise(tmp_path, NEW, "cd34", overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before
    assert records.read_config(tmp_path)[:2] == (OLD, "ab12")


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
    assert records.read_config(tmp_path)[:2] == (NEW, "cd34")


def test_a_locked_workdir_names_the_process_that_holds_it(tmp_path):
    with workdir.lock(tmp_path / "run"):
        with pytest.raises(records.RecordsError, match="in use by process .*--workdir"):
            with workdir.lock(tmp_path / "run"):
                pass
    with workdir.lock(tmp_path / "run"):
        pass
