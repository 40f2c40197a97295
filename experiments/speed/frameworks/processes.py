"""The benchmark's side of its workers."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import flags

from experiments.common.machine import ROOT
from experiments.speed.frameworks.registry import FRAMEWORKS, INTERPRETERS, MATMUL
from mnist_jax.errors import UserError

flags.disclaim_key_flags()  # `--help` shows them as the study's own


class BenchmarkError(UserError):
    """The benchmark cannot go on."""


def define_flags() -> None:
    """Of studies whose workers measure MNIST: who takes part, and how."""
    for key, one in INTERPRETERS.items():
        flags.DEFINE_string(f"{key}_python", None, f"Python that has {one.library}")
    flags.DEFINE_integer("rounds", 3, "turns of each", lower_bound=1)
    flags.DEFINE_enum(
        "dataset", "mnist", ["mnist", "synthetic"], "synthetic: noise, needs no files"
    )
    flags.DEFINE_integer(
        "threads", None, "per framework (default: the cores of this process)", 1
    )


def environment(threads: int) -> dict[str, str]:
    """What all workers run under: CPU alone, `threads` threads in every framework."""
    pools = ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM", "NUMEXPR")
    return {
        **os.environ,
        **{f"{pool}_NUM_THREADS": str(threads) for pool in pools},
        "PJRT_NPROC": str(threads),  # XLA's own pool
        "JAX_PLATFORMS": "cpu",
        "CUDA_VISIBLE_DEVICES": "-1",
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def find_interpreter(flag: str, python: str, modules: str, env: dict) -> str:
    """The path of a competitor's interpreter, which can start.

    Args:
      flag: the flag that named the interpreter.
      python: its path, or its name in PATH.
      modules: what it has to be able to import, as in "keras, tensorflow".
      env: see `environment`.

    Raises:
      BenchmarkError: it cannot.
    """
    # Workers have another working directory.
    path = os.path.abspath(python) if os.sep in python else python
    remedy = f"give an interpreter that has {modules}, or leave the flag out"
    try:
        done = subprocess.run(
            [path, "-c", f"import {modules}"], cwd=ROOT, env=env, capture_output=True
        )
    except OSError as error:
        raise BenchmarkError(f"--{flag}={python}: {error.strerror}: {remedy}") from None
    if done.returncode:
        raise BenchmarkError(f"--{flag}={python}: {_tail(done.stderr, 1)}: {remedy}")
    return path


def choose_workers(
    given: Mapping[str, str | None], env: dict[str, str]
) -> dict[str, list[str]]:
    """The command of each worker, in the order of their turns.

    Args:
      given: interpreter by key of `INTERPRETERS`; None to leave out.
      env: of the workers.

    Raises:
      BenchmarkError: an interpreter cannot be used.
    """
    found = {
        key: find_interpreter(f"{key}_python", python, INTERPRETERS[key].modules, env)
        for key, python in given.items()
        if python
    }
    found[None] = sys.executable
    workers = {}
    for name, one in FRAMEWORKS.items():
        if one.interpreter not in found:
            continue
        if one.needs_compiler and not has_compiler():
            say(f"{name} is left out: it needs a C++ compiler, and none is in PATH")
            continue
        workers[name] = (found[one.interpreter], one.worker)
    workers[MATMUL] = (sys.executable, MATMUL)
    return {
        name: [python, "-m", f"experiments.speed.frameworks.{module}"]
        for name, (python, module) in workers.items()
    }


def has_compiler() -> bool:
    return any(shutil.which(name) for name in ("g++", "c++", "clang++"))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Worker:
    """A process that trains one model in one framework; see `protocol.py`."""

    def __init__(self, name: str, command: list[str], env: dict, log: Path):
        """Starts it.

        Args:
          name: for messages.
          command: what to run.
          env: see `environment`.
          log: where all that it prints goes.
        """
        self._name, self._log = name, log
        replies, its_end = os.pipe()
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*command, f"--replies={its_end}"],
                cwd=ROOT,
                env=env,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=[its_end],
                bufsize=0,
            )
        os.close(its_end)
        self._replies = os.fdopen(replies)

    def read(self) -> dict[str, Any]:
        """The next reply.

        Raises:
          BenchmarkError: the worker died.
        """
        line = self._replies.readline()
        if not line:
            status = self._process.wait()
            raise BenchmarkError(
                f"{self._name} ended with status {status}: "
                f"{_tail(self._log.read_bytes(), 3)}"
            )
        return json.loads(line)

    def run_epoch(self) -> dict[str, Any]:
        """Trains one epoch; raises as `read` does."""
        try:
            self._process.stdin.write(b"epoch\n")
        except BrokenPipeError:
            pass  # `read` says why
        return self.read()

    def close(self) -> None:
        """Ends the process, which has nothing to save."""
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._replies.close()


@contextlib.contextmanager
def warmed_up(
    commands: Mapping[str, list[str]],
    model: str,
    batch_size: int,
    threads: int,
    folder: Path,
) -> Iterator[tuple[dict[str, Worker], dict[str, dict[str, Any]]]]:
    """Workers that are ready, one warmed up after the other, and what each said.

    Args:
      commands: by the name that the worker is told.
      model: that they build.
      batch_size: images per step.
      threads: for each.
      folder: holds data.npz, and takes what the workers print.

    Raises:
      BenchmarkError: a worker died.
    """
    workers, ready = {}, {}
    try:
        for name, command in commands.items():
            arguments = {
                "framework": name,
                "model": model,
                "batch_size": batch_size,
                "threads": threads,
                "data": folder / "data.npz",
            }
            workers[name] = Worker(
                f"{name} of {model}",
                [*command, *(f"--{key}={value}" for key, value in arguments.items())],
                environment(threads),
                folder / f"{model}-{name}.log",
            )
            ready[name] = workers[name].read()
            seconds = ready[name]["warm_up_seconds"]
            say(f"{model} {name}: warm-up {seconds:.1f} s")
        yield workers, ready
    finally:
        for worker in workers.values():
            worker.close()


def _tail(output: bytes, num_lines: int) -> str:
    """The last lines that say something, as one line."""
    lines = [x.strip() for x in output.decode(errors="replace").splitlines()]
    return " | ".join([x for x in lines if x][-num_lines:]) or "it said nothing"
