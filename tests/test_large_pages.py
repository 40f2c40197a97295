"""Programs that start anew for large pages, in processes of their own."""

import os
import platform
import subprocess
import sys

import pytest
from runs_of_launch import ROOT

PROGRAM = """
import os, sys
from pathlib import Path
from mnist_jax import large_pages

print("started", flush=True)
large_pages._SETTING = Path(sys.argv[1])
if sys.argv[2] == "renamed":
    sys.argv = ["other", *sys.argv[1:]]
large_pages.restart_with_them()
print(os.environ.get("GLIBC_TUNABLES"), sys.argv[1:], sys.flags.utf8_mode)
"""
ASKS = "glibc.malloc.hugetlb=1"

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="large pages on request are Linux's"
)


def glibc_asks():
    name, version = platform.libc_ver()
    return name == "glibc" and tuple(map(int, version.split(".")[:2])) >= (2, 35)


def run(tmp_path, *command, setting="always [madvise] never", **environment):
    (tmp_path / "setting").write_text(setting)
    (tmp_path / "program.py").write_text(PROGRAM)
    env = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    done = subprocess.run(
        [sys.executable, "-X", "utf8=1", *command],
        env=env | {"PYTHONPATH": str(ROOT)} | environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("program", [("program.py",), ("-m", "program")])
def test_a_program_starts_anew_with_its_own_command_line(tmp_path, program):
    if not glibc_asks():
        pytest.skip("a C library that does not ask for large pages")
    arguments = ["setting", "a b", "ü"]
    lines = run(tmp_path, *program, *arguments)
    assert lines == ["started", "started", f"{ASKS} {arguments} 1"]


@pytest.mark.parametrize(
    "arguments, options",
    [
        (["setting", "x"], {"setting": "[always] madvise never"}),
        (["setting", "x"], {"setting": "always madvise [never]"}),
        (["missing", "x"], {}),
        (["setting", "renamed"], {}),
        (["setting", "x"], {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=1"}),
    ],
)
def test_it_goes_on_where_there_is_nothing_to_gain(tmp_path, arguments, options):
    lines = run(tmp_path, "program.py", *arguments, **options)
    own = options.get("GLIBC_TUNABLES")
    assert lines == ["started", f"{own} {arguments} 1"]
