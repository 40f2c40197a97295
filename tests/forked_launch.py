"""launch.py and the studies, imported once and forked for each command line.

Most of what a short command takes is the import of JAX. The process that this file is
when it is run has done that, and no JAX backend exists in it yet, so that each of its
forks may set up its own devices as a fresh process would.

  server: one line of JSON per command line, {"program", "arguments", "cwd",
          "environment"}; a program is "launch" or "accuracy.sweep" and the like
  reply:  one line of JSON, the fields of `Done`
"""

import contextlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

ROOT = Path(__file__).resolve().parents[1]
XLA_FLAGS = os.environ["TESTS_XLA_FLAGS"]  # of programs; conftest.py sets them
SECONDS = 1200  # that one command line may take on a machine with other work


class Done(NamedTuple):
    """What a command line came to."""

    code: int  # below 0: the signal that ended it
    output: str
    errors: str
    peak_bytes: int  # of memory, what was imported before the fork included


class ForkedLaunch:
    """Runs command lines, each in a process forked from one."""

    def __init__(self, process: subprocess.Popen):
        self._process = process

    def __call__(
        self, *arguments: str, cwd: Path, program: str = "launch", **environment: str
    ) -> Done:
        request = dict(
            program=program, arguments=arguments, cwd=str(cwd), environment=environment
        )
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Done(**json.loads(self._process.stdout.readline()))


@contextlib.contextmanager
def forked_launch(**environment: str) -> Iterator[ForkedLaunch]:
    """The process to fork from, as long as the context is entered."""
    process = subprocess.Popen(
        [sys.executable, __file__],
        env={
            **os.environ,
            "XLA_FLAGS": XLA_FLAGS,
            "PYTHONPATH": str(ROOT),
            **environment,
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield ForkedLaunch(process)


def _serve() -> None:
    import matplotlib.figure  # noqa: F401  what else commands import, in advance

    from mnist_jax import commands, images, predict, training, vectorized  # noqa: F401
    from mnist_jax.data import prepared  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            pid = os.fork()
            if pid == 0:
                _become(request, output.fileno(), errors.fileno())
                _run(request["program"], request["arguments"])
            _, status, usage = os.wait4(pid, 0)
            done = Done(
                os.waitstatus_to_exitcode(status),
                _content(output),
                _content(errors),
                usage.ru_maxrss * 1024,
            )
        print(json.dumps(done._asdict()), flush=True)


def _become(request: dict, output: int, errors: int) -> None:
    """Gives a forked process the folder, environment and streams of its command."""
    signal.alarm(SECONDS)
    os.chdir(request["cwd"])
    os.environ.update(request["environment"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, stream in enumerate((nothing, output, errors)):
        os.dup2(stream, number)


def _run(program: str, arguments: list[str]) -> NoReturn:
    """Runs a command and ends, with the code and last words of a Python program.

    Without what else Python does at its end: to free all that was imported takes
    longer than most of the commands.
    """
    code = 1
    try:
        if program == "launch":
            sys.argv = [str(ROOT / "launch.py"), *arguments]
            runpy.run_path(sys.argv[0], run_name="__main__")
        else:
            sys.argv = ["-m", *arguments]
            module = f"experiments.{program}"
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        else:
            code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _content(file) -> str:
    file.seek(0)
    return file.read().decode()


if __name__ == "__main__":
    _serve()
