"""SIGINT and SIGTERM at any moment of a program: one line, and nothing is lost.

A moment is one of Python's audit events (see interrupting/sitecustomize.py), so that it
is the same on a fast machine and a slow one. Moments that follow each other interrupt
the same run, whose end must be the bits of one that was never stopped.
"""

import json
import re
import shutil
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from runs_of_launch import (
    LAUNCH,
    ROOT,
    SECONDS,
    assert_same_run,
    finish,
    make_mlp,
    start_python,
)

from mnist_jax import signals, training
from mnist_jax.signals import Interrupted
from mnist_jax.storage import records

HOOK = ROOT / "tests" / "interrupting"
COMMON = ("--dataset=digits", "--epochs=5", "--num_devices=1", "--checkpoint_every=0")
QUICK = ("--model=linear", *COMMON)
RUN = ("--model=gru", "--units=8", *COMMON)  # takes seconds to compile
STUDY = (
    "-m", "experiments.accuracy.compare_models", "--models=linear,mlp", "--seeds=0",
    "--datasets=digits", "--epochs=2",
)  # fmt: skip
WRITES = "tempfile.mkstemp"

# What happens then -> event, text in its arguments, how often before, seconds more.
IMPORTS = {
    f"import {name}": ("import", name, 0, 0)
    for name in (
        "absl", "mnist_jax.cli", "jax", "jaxlib.xla_client", "flax.linen", "optax",
        "orbax.checkpoint", "scipy.ndimage", "mnist_jax.commands",
    )
} | {
    f"within the import of {name}, {count}": ("import", name, count, seconds)
    for name, count, seconds in (
        ("jax._src", 10, 0), ("jax._src", 40, 0), ("jax._src", 80, 0),
        ("jax._src", 120, 0.01), ("flax", 10, 0.01), ("flax", 30, 0),
        ("orbax", 30, 0.02), ("orbax", 60, 0), ("numpy", 20, 0),
    )
}  # fmt: skip
DATA = {
    "import of tfds": ("import", "tensorflow_datasets.core", 3, 0),
    "data read": ("import", "sklearn.datasets", 0, 0.1),
    "data written": ("open", "dataset_info.json", 0, 0),
    "data moved": ("os.rename", ".preparing-", 0, 0),
}
BEGIN = {
    "config written": (WRITES, ".config.json", 0, 0),
    "before compilation": (WRITES, ".metrics.jsonl", 0, 0),
} | {
    f"compilation, {seconds} s": (WRITES, ".metrics.jsonl", 0, seconds)
    for seconds in (0.02, 0.05, 0.1, 0.15)
}
COLD = {
    f"compilation, {seconds} s": (WRITES, ".metrics.jsonl", 0, seconds)
    for seconds in (0.3, 0.5, 0.8)
}
TRAINING = {
    "checkpoint": ("os.rename", "checkpoints", 0, 0),
    "an epoch": (WRITES, ".metrics.jsonl", 1, 0),
}
END = {
    "predictions": (WRITES, ".predictions.npz", 0, 0),
    "result": (WRITES, ".result.json", 0, 0),
}
FIGURES = {
    "import of matplotlib": ("import", "matplotlib.figure", 0, 0),
} | {
    name: (WRITES, f".{name}.png", 0, 0)
    for name in ("curves", "confusion_matrix", "samples", "predictions", "mistakes")
}


def interrupt(number, moment, *command, cwd, **environment):
    """(stdout, stderr) of a program that the signal must have ended."""
    told = cwd / "sent"
    told.unlink(missing_ok=True)
    process = start_python(
        *command,
        cwd=cwd,
        PYTHONPATH=f"{HOOK}:{ROOT}",
        XLA_FLAGS="",
        INTERRUPT=json.dumps([number, *moment]),
        INTERRUPT_SENT=str(told),
        **environment,
    )
    [(status, output, errors)] = finish([process])
    assert told.exists(), f"it never came to {moment}:\n{output}{errors}"
    assert status == 128 + number, (status, output, errors)
    lines = [x for x in errors.splitlines() if not re.match(r"epoch|run \d", x)]
    assert len(lines) == 1, errors
    assert lines[0].startswith(f"stopped by {signal.Signals(number).name}"), errors
    return output, lines[0]


def left_over(folder):
    """What is half written."""
    return [path for path in folder.rglob(".*") if path.name != ".lock"]


def chain(number, moments, folder, *command):
    """Interrupts the same run at moments that follow each other."""
    for name, moment in moments.items():
        output, line = interrupt(
            number, moment, *command, cwd=folder, TFDS_DATA_DIR=str(folder / "data")
        )
        assert not left_over(folder), name
        assert "Traceback" not in output
        yield name, line


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, run_launch):
    """The workdir of `QUICK`."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run_launch(*QUICK, "--workdir=run", cwd=folder)
    return folder / "run"


def pick(moments, *names):
    return {name: moments[name] for name in names}


@pytest.mark.slow
def test_a_run_stopped_at_any_moment_goes_on_to_the_same_bits(
    tmp_path, run_launch, undisturbed
):
    command = (LAUNCH, *QUICK, "--workdir=run")
    data_dir = {"TFDS_DATA_DIR": str(tmp_path / "data")}
    early = pick(IMPORTS | DATA, "within the import of jax._src, 40", "data moved")
    for _, line in chain(signal.SIGTERM, early, tmp_path, *command):
        assert "goes on" not in line
    assert not (tmp_path / "run").exists()
    begun = pick(BEGIN | TRAINING, "compilation, 0.1 s", "an epoch")
    for _, line in chain(signal.SIGINT, begun, tmp_path, *command):
        assert "the same command, without --overwrite, goes on from there" in line
    assert not (tmp_path / "run/result.json").exists()

    # Where nothing is left to save the run ends, and then the program.
    last = pick(END, "predictions")
    lines = dict(chain(signal.SIGTERM, last, tmp_path, *command))
    assert "SIGTERM; run is complete; the same command" in lines["predictions"]
    assert not (tmp_path / "run/figures").exists()
    dict(chain(signal.SIGINT, pick(FIGURES, "curves"), tmp_path, *command))
    run_launch(*QUICK, "--workdir=run", cwd=tmp_path, **data_dir)
    assert len(list((tmp_path / "run/figures").iterdir())) == 5
    assert_same_run(tmp_path / "run", undisturbed)


@pytest.mark.slow
def test_a_study_stops_where_its_run_is_complete(tmp_path):
    _, line = interrupt(signal.SIGINT, END["predictions"], *STUDY, cwd=tmp_path)
    assert "is complete; the same command goes on from there" in line
    runs = [path.name for path in (tmp_path / "runs/compare").iterdir()]
    assert runs == ["digits-default-linear-0"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("keeps_programs", [True, False])
def test_launch_at_every_moment(number, keeps_programs, tmp_path, run_launch):
    command = (LAUNCH, *RUN, "--workdir=run")
    dict(chain(number, IMPORTS | DATA, tmp_path, *command))
    assert not (tmp_path / "run").exists()
    if keeps_programs:
        dict(chain(number, BEGIN, tmp_path, *command))
    else:
        # Not that of all tests either.
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("JAX_COMPILATION_CACHE_DIR")
            cold = (*command, "--nocompilation_cache")
            dict(chain(number, BEGIN | COLD, tmp_path, *cold))
    dict(chain(number, TRAINING, tmp_path, *command))
    for name in END:
        shutil.copytree(tmp_path / "run", tmp_path / name)
        other = (*command[:-1], f"--workdir={name}")
        dict(chain(number, pick(END, name), tmp_path, *other))
        assert (tmp_path / name / "result.json").exists()
    dict(chain(number, FIGURES, tmp_path, LAUNCH, *RUN, "--workdir=result"))
    run_launch(*RUN, "--workdir=undisturbed", cwd=tmp_path)
    for name in ("run", *END):
        run_launch(*RUN, f"--workdir={name}", cwd=tmp_path)
        assert_same_run(tmp_path / name, tmp_path / "undisturbed")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_study_at_every_moment(number, tmp_path, run_study):
    _, name, *arguments = STUDY
    study = name.removeprefix("experiments.")
    imports = {name: x for name, x in IMPORTS.items() if "commands" not in name}
    moments = imports | DATA | BEGIN | pick(END, "predictions")
    moments |= {f"second run: {name}": BEGIN[name] for name in BEGIN}
    moments |= pick(END, "result")
    moments |= {"a chart": (WRITES, ".pareto.png", 0, 0)}
    moments |= {"the page": (WRITES, ".report-digits.html", 0, 0)}
    dict(chain(number, moments, tmp_path, *STUDY))
    run_study(study, *arguments, cwd=tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    run_study(study, *arguments, cwd=other)
    for model in ("linear", "mlp"):
        folder = f"runs/compare/digits-default-{model}-0"
        assert_same_run(tmp_path / folder, other / folder)


@pytest.mark.slow
def test_overwrite_stopped_before_it_changed_anything_says_so(tmp_path, undisturbed):
    shutil.copytree(undisturbed, tmp_path / "run")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")}
    command = (LAUNCH, *QUICK, "--workdir=run", "--overwrite", "--seed=5")
    data = {"within loading": ("import", "tensorflow_datasets.core", 3, 0)}
    for _, line in chain(signal.SIGINT, data, tmp_path, *command):
        assert line.endswith("no run was changed; the same command starts again")
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")} == before


def test_a_signal_in_the_last_chunk_ends_the_program(tmp_path):
    config, check = make_mlp(), training.check_loss

    def stop_in_last_epoch(losses, done, config):
        check(losses, done, config)
        if done + len(losses) == 3 * 39:
            signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "check_loss", stop_in_last_epoch)
        with pytest.raises(Interrupted, match="SIGTERM; .* is complete") as caught:
            training.train_and_evaluate(config, tmp_path)
    assert caught.value.signal_number == signal.SIGTERM
    assert records.read_result(tmp_path)["epochs"] == 3


def test_a_signal_that_nobody_answered_is_delivered_at_the_end():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with signals.noted() as received:
            with signals.noted() as inner:
                signal.raise_signal(signal.SIGTERM)
                assert inner() == signal.SIGTERM
            assert received() == signal.SIGTERM and not seen
        assert seen == [signal.SIGTERM]
        with pytest.raises(Interrupted), signals.noted() as received:
            assert received() == 0
            signal.raise_signal(signal.SIGTERM)
            raise Interrupted("answered", received())
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_second_sigint_is_not_noted():
    with pytest.raises(KeyboardInterrupt), signals.noted():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def test_a_compilation_may_fail_in_its_thread():
    """There is one from `listen` on, which is undone for the tests after this."""
    threads = []

    def fail():
        threads.append(threading.current_thread())
        raise ValueError("of its own")

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        signals.listen()
        with pytest.raises(ValueError, match="of its own"):
            signals.interruptible(fail)
        assert np.pi == signals.interruptible(lambda: np.pi)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    [thread] = threads
    assert thread is not threading.main_thread()


def test_an_ignored_signal_stays_ignored():
    """As SIGINT is in a background job of a shell."""
    code = (
        "import signal; from mnist_jax import signals; signals.listen();"
        "print(signal.getsignal(signal.SIGINT).name)"
    )
    done = subprocess.run(
        ["/bin/sh", "-c", 'trap "" INT; exec "$0" -c "$1"', sys.executable, code],
        cwd=ROOT, capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip
    assert done.stdout == "SIG_IGN\n", done.stderr
