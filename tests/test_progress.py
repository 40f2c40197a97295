"""What a run shows on a terminal; elsewhere it is silent but for a line per epoch."""

import io
import sys

import pytest

from mnist_jax import progress


class Stream(io.StringIO):
    def __init__(self, is_terminal):
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self):
        return self._is_terminal


@pytest.fixture
def stream(monkeypatch):
    """(is_terminal) -> what stderr is from then on, as wide on every machine."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("LINES", "50")

    def replace(is_terminal):
        new = Stream(is_terminal)
        monkeypatch.setattr(sys, "stderr", new)
        return new

    return replace


def last_line(stream):
    return stream.getvalue().strip().split("\r")[-1]


def test_a_run_that_goes_on_shows_the_epoch_that_it_is_in(stream):
    terminal = stream(True)
    with progress.Progress(num_epochs=3, epoch_images=100, done=100) as bar:
        shown = []
        for _ in range(3):
            bar.update(50, loss=0.25, accuracy=0.875)
            shown.append(last_line(terminal))
    # An epoch's last image is not of the next one.
    for line, told in zip(shown, ("2/3:  50%", "2/3:  67%", "3/3:  83%"), strict=True):
        assert line.startswith(f"epoch {told}"), line
        assert "loss 0.2500, accuracy 87.50%" in line


def test_no_bar_where_nobody_looks_at_it(stream):
    """In a file, and of a process beside another that shows it."""
    for is_terminal, is_silent in ((False, False), (True, True)):
        elsewhere = stream(is_terminal)
        with progress.Progress(3, 100, 0, is_silent) as bar:
            bar.update(50, loss=0.25, accuracy=0.875)
        assert elsewhere.getvalue() == ""
    file = stream(False)
    assert list(progress.bar(range(21), 21, " files")) == list(range(21))
    assert file.getvalue() == ""


def test_many_items_are_counted(stream):
    terminal = stream(True)
    assert list(progress.bar(range(20), 20, " files")) == list(range(20))
    assert terminal.getvalue() == "", "few need no bar"
    assert list(progress.bar(iter(range(21)), 21, " files")) == list(range(21))
    assert "21/21 [" in last_line(terminal) and " files/s" in last_line(terminal)
