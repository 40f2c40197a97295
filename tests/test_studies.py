"""The studies from end to end on the embedded digits, and their pages in a browser."""

import json
import re
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "experiments"))

from study import figures  # noqa: E402
from study.page import Page, markdown, write_all  # noqa: E402

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)
COMPARE = ("--datasets=digits", "--models=linear,mlp", "--seeds=0,1", "--epochs=2")


@pytest.fixture(scope="module")
def compared(tmp_path_factory, run_study):
    """The folder of a comparison of two models."""
    folder = tmp_path_factory.mktemp("compare")
    run_study("compare_models.py", *COMPARE, cwd=folder)
    return folder


def test_compare_writes_tables_figures_and_a_page(compared):
    workdir = compared / "runs" / "compare"
    content = json.loads((workdir / "compare-digits.json").read_text())
    assert [row["model"] for row in content["rows"]] == ["linear", "mlp"]
    for row in content["rows"]:
        result = [
            json.loads((workdir / name / "result.json").read_text())
            for name in (f"digits-default-{row['model']}-{seed}" for seed in (0, 1))
        ]
        accuracies = [one["test_accuracy"] for one in result]
        assert row["test_accuracies"] == accuracies
        assert row["test_accuracy"] == pytest.approx(np.mean(accuracies))
        assert row["spread"] == pytest.approx(np.std(accuracies, ddof=1))
        assert 0 <= row["calibration_error"] < 1
    pairs = content["test"]["pairs"]
    assert [pair["seed"] for pair in pairs] == [0, 1]
    assert all(0 <= pair["p_value"] <= 1 for pair in pairs)
    assert {path.stem for path in (workdir / "figures-digits").iterdir()} == {
        "curves", "pareto", "per_class", "confusion", "reliability", "hard",
    }  # fmt: skip
    assert "| linear | 7,850 | 2 |" in (workdir / "compare-digits.md").read_text()


def test_finished_runs_are_not_repeated(compared, run_study):
    before = (compared / "runs/compare/compare-digits.json").read_text()
    output, errors = run_study("compare_models.py", *COMPARE, cwd=compared)
    assert "epoch" not in errors and "run 1 of" not in errors
    assert (compared / "runs/compare/compare-digits.json").read_text() == before


def test_a_run_of_other_settings_is_refused(compared, run_study):
    arguments = [*COMPARE[:-1], "--epochs=3"]
    _, errors = run_study("compare_models.py", *arguments, cwd=compared, code=1)
    assert "does not hold this study's run: delete it" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    "name, arguments, expected",
    [
        ("compare_models.py", ["--models=linear"], "--models: give two or more"),
        ("compare_models.py", ["--models=linear,tree"], "--model=tree: expected one"),
        ("compare_models.py", ["--seeds=0,x"], "--seeds=0,x: expected whole numbers"),
        ("compare_models.py", ["--seeds="], "--seeds=: expected whole numbers"),
        ("reproduce.py", ["--seeds=0,00"], "--seeds=0,00: give each once"),
        ("reproduce.py", ["--only="], "--only=: expected some of rows"),
        ("compare_models.py", ["--datasets=cifar"], "--datasets=cifar: expected"),
        ("reproduce.py", ["--only=svm"], "--only=svm: expected some of rows, lstm"),
        ("reproduce.py", ["extra"], "'extra' is not a flag"),
        ("lanes.py", ["--lanes=1"], "--lanes=1: expected numbers of 2 or more"),
        ("ensemble.py", ["--model=gru", "--preset=fast"], "gru has no such preset"),
    ],
)
def test_wrong_input_is_told_in_one_line(
    name, arguments, expected, tmp_path, run_study
):
    output, errors = run_study(name, *arguments, cwd=tmp_path, code=1)
    assert expected in errors and errors.startswith("error: "), errors
    assert len(errors.splitlines()) == 1 and not list(tmp_path.iterdir())


def reproduce(folder, run_study, *arguments):
    """The rows of reproduce.json and the page."""
    arguments = ("--dataset=digits", "--seeds=0", *arguments)
    run_study("reproduce.py", *arguments, cwd=folder)
    workdir = folder / "runs" / "reproduce-digits"
    rows = json.loads((workdir / "reproduce.json").read_text())["rows"]
    assert all(row["claim"] and 0.1 < row["test_accuracy"] <= 1 for row in rows)
    # What is claimed is claimed of MNIST.
    assert all(row["reached"] is None for row in rows)
    return rows, (workdir / "report.html").read_text()


def test_reproduce_one_system(tmp_path, run_study):
    [row], page = reproduce(tmp_path, run_study, "--only=mlp")
    assert row["name"] == "MLP 512-512, dropout" and row["num_params"] == 669_706
    assert "Confused most" in page


@pytest.mark.slow
def test_reproduce_all_five_systems_within_two_minutes(tmp_path, run_study):
    began = time.monotonic()
    rows, page = reproduce(tmp_path, run_study, "--trials=3")
    assert time.monotonic() - began < 120
    assert len({row["system"] for row in rows}) == 5 and len(rows) == 19
    for words in ("Confused most", "are a step back", "validated best"):
        assert words in page


def test_ensemble(tmp_path, run_study):
    arguments = ("--dataset=digits", "--model=linear", "--epochs=2", "--members=3")
    run_study("ensemble.py", *arguments, cwd=tmp_path)
    workdir = tmp_path / "runs" / "ensemble-digits-linear"
    rows = json.loads((workdir / "ensemble.json").read_text())
    assert [row["size"] for row in rows] == [1, 2, 3]
    assert [row["subsets"] for row in rows] == [3, 3, 1]
    assert all(x["lowest"] <= x["accuracy"] <= x["highest"] for x in rows)


def test_lanes(tmp_path, run_study):
    arguments = ("--dataset=digits", "--models=linear", "--lanes=2", "--rounds=1")
    run_study("lanes.py", *arguments, cwd=tmp_path)
    rows = json.loads((tmp_path / "runs/lanes/lanes.json").read_text())["rows"]
    assert [row["lanes"] for row in rows] == [1, 2]
    assert rows[0]["times_one"] == 1 and rows[1]["times_one"] > 0


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.sources = []

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("src", "href"):
                self.sources.append(value)


def test_a_page_requests_nothing(compared):
    page = (compared / "runs/compare/report-digits.html").read_text()
    tags = _Tags()
    tags.feed(page)
    assert len(tags.sources) == 7  # six figures and the empty icon
    assert all(source.startswith("data:") for source in tags.sources)
    assert not re.search(r"https?://|@import|url\(", page.split("<body>")[0])


def test_a_page_escapes_what_it_shows(tmp_path):
    page = Page("<b>title</b>", "python a.py --x='<script>'")
    page.table(("a<b",), [("<i>",)])
    write_all(tmp_path, {"page.html": page})
    text = (tmp_path / "page.html").read_text()
    assert "<b>" not in text and "<i>" not in text and text.count("<script>") == 1


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium to open the page in")
def test_a_page_sorts_in_a_browser_without_errors(tmp_path):
    page = Page("Sorting", "python a.py")
    page.table(
        ("name", "value"), [("a", "2"), ("b", "10"), ("c", "1,000"), ("d", "3%")]
    )
    page.figure(figures.lines({"x": ([1, 2], [3, 4])}, ("x", "y"), "t"), "A line.")
    path = tmp_path / "page.html"
    write_all(tmp_path, {"page.html": page})
    click = (
        "<script>document.querySelectorAll('th')[1].click();"
        "document.title = [...document.querySelectorAll('td:first-child')]"
        ".map(cell => cell.textContent).join('');</script></body>"
    )
    path.write_text(path.read_text().replace("</body>", click))
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
            f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )  # fmt: skip
    assert "<title>adbc</title>" in done.stdout
    assert "CONSOLE" not in done.stderr, done.stderr


def test_markdown_table():
    assert (
        markdown(("a", "b"), [("x", "1")]) == "| a | b |\n| --- | ---: |\n| x | 1 |\n"
    )
