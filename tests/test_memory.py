"""A long run takes no more of the machine at its end than near its start."""

import json
import os
import sys
from pathlib import Path

import pytest
from runs_of_launch import finish, start_python

from mnist_jax.config import make_config
from mnist_jax.training import train_and_evaluate

pytestmark = pytest.mark.slow  # half a minute

PROCESS = Path("/proc/self")
NUM_EPOCHS, WARM = 200, 50
# From epoch 50 to 200 memory grew by 2.1, 2.5, 2.7, 2.8 and 4.3 MiB in five runs: about
# 12 KiB per save, half of which tensorstore loses. One state per epoch would be 14 MiB.
MOST_MEMORY = 12 * 2**20
# The libraries' pools start a thread when they first need it: 0 or 1 in those runs.
MOST_THREADS = 5


def sample():
    """Bytes in memory, open files and threads of this process."""
    pages = int((PROCESS / "statm").read_text().split()[1])
    return {
        "memory": pages * os.sysconf("SC_PAGE_SIZE"),
        "files": len(os.listdir(PROCESS / "fd")),
        "threads": len(os.listdir(PROCESS / "task")),
    }


def main(folder):
    """Trains in this process; samples.json holds a sample of each epoch."""
    samples = []
    # Every epoch of 39 steps is a chunk, and every chunk is saved.
    config = make_config(
        "linear", "digits", epochs=NUM_EPOCHS, num_devices=2, checkpoint_every=0
    )
    train_and_evaluate(
        config, folder / "run", on_epochs=lambda epochs: samples.append(sample())
    )
    (folder / "samples.json").write_text(json.dumps(samples))


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """One before the first epoch and one after each, of a process of their own."""
    if not (PROCESS / "statm").exists():
        pytest.skip("no /proc: this system does not tell what a process takes")
    folder = tmp_path_factory.mktemp("memory")
    [(status, output, errors)] = finish([start_python(__file__, folder)], seconds=900)
    assert status == 0, output + errors
    samples = json.loads((folder / "samples.json").read_text())
    assert len(samples) == 1 + NUM_EPOCHS
    return samples


def test_memory_does_not_grow(samples):
    assert samples[-1]["memory"] - samples[WARM]["memory"] < MOST_MEMORY


def test_no_file_is_left_open(samples):
    assert samples[-1]["files"] <= samples[WARM]["files"] + 1


def test_no_thread_is_left_behind(samples):
    most = max(sample["threads"] for sample in samples[WARM:])
    assert most - samples[WARM]["threads"] <= MOST_THREADS


if __name__ == "__main__":
    main(Path(sys.argv[1]))
