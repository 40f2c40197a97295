"""What the tests share: the devices, a data_dir, and the way to the real MNIST."""

import functools
import os
import signal
import tempfile
from pathlib import Path

import pytest

# Read when JAX is first imported, which is after this file and `pytest_configure`.
os.environ.setdefault("JAX_PLATFORMS", "cpu")


def _add_xla_flag(name, value):
    given = os.environ.get("XLA_FLAGS", "")
    if name not in given:
        os.environ["XLA_FLAGS"] = f"{given} --{name}={value}".strip()


_add_xla_flag("xla_force_host_platform_device_count", 4)

# As mnist_jax/__init__.py sets it. A test module that imports JAX before the package
# would leave another value to the processes that tests start.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

# In a background job of a shell SIGINT is ignored, and would be by all processes that
# tests start; with a handler here they get the default.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Many tests compile the same programs, in this process, its workers and launch.py.
# Without JAX_COMPILATION_CACHE_MAX_SIZE: JAX would take turns, but look at all entries
# for each new one, and write no more after a process that was killed over an entry.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _CACHE = tempfile.TemporaryDirectory(prefix="mnist_jax-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

# The user's own files must not decide a test that does not ask for them.
# The workers of pytest-xdist inherit the environment as it is left here.
_USER_RAW_DIR = os.environ.pop("MNIST_RAW_DIR", os.environ.get("_TESTS_RAW_DIR"))
if _USER_RAW_DIR:
    os.environ["_TESTS_RAW_DIR"] = _USER_RAW_DIR


def pytest_configure(config):
    # Simpler programs compile in about half the time and run longer, which is little
    # with small arrays. The slow tests compile as for users. Processes of launch.py and
    # the studies have the devices that a person's machine has, so only these flags.
    programs = {}
    if config.getoption("markexpr") == "not slow":
        programs = {
            "xla_cpu_use_fusion_emitters": "false",
            "xla_backend_optimization_level": 0,
            "xla_cpu_parallel_codegen_split_count": 1,
        }
    for name, value in programs.items():
        _add_xla_flag(name, value)
    os.environ["TESTS_XLA_FLAGS"] = " ".join(f"--{n}={v}" for n, v in programs.items())


@pytest.hookimpl(wrapper=True)
def pytest_xdist_auto_num_workers():
    """One more than cores: a quarter of the time goes by in waiting for processes."""
    is_asked_for = "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ
    return (yield) + (not is_asked_for)


@pytest.fixture(scope="session", autouse=True)
def data_dir(tmp_path_factory) -> Path:
    """A temporary tfds data_dir, the default one for the whole session."""
    path = tmp_path_factory.mktemp("tensorflow_datasets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(path))
        yield path


@pytest.fixture(scope="session")
def forked(data_dir):
    """Runs command lines of launch.py and the studies; see forked_launch.py."""
    from forked_launch import forked_launch

    with forked_launch() as run:
        yield run


@pytest.fixture(scope="session")
def run_study(forked):
    """(name, *arguments, cwd, code) -> (stdout, stderr) of experiments.<name>."""

    def run(name, *arguments, cwd, code=0, **environment):
        done = forked(*arguments, program=name, cwd=cwd, **environment)
        assert done.code == code, done.output + done.errors
        return done.output, done.errors

    return run


@pytest.fixture(scope="session")
def run_launch(run_study):
    """(*arguments, cwd, code) -> (stdout, stderr) of launch.py."""
    return functools.partial(run_study, "launch")


@pytest.fixture(scope="session")
def mnist_raw_dir() -> Path:
    """The folder of the four MNIST files, from MNIST_RAW_DIR or beside the repository.

    A test that asks for it is skipped where one of them is missing.
    """
    from mnist_jax.data import DatasetError, idx

    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"
    path = Path(_USER_RAW_DIR) if _USER_RAW_DIR else beside
    try:
        idx.require(path)
    except DatasetError as error:
        unset = "" if _USER_RAW_DIR else "MNIST_RAW_DIR is not set and "
        pytest.skip(f"no MNIST files: {unset}{error}")
    return path


@pytest.fixture
def on_accelerators(monkeypatch):
    """What is traced from here on takes the operations meant for accelerators."""
    import jax

    def take_default(*operands, default, cpu=None, cuda=None, tpu=None):
        return (cuda or default)(*operands)

    monkeypatch.setattr(jax.lax, "platform_dependent", take_default)
