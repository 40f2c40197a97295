"""Parses, locks and initialises the workdir."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import logging

from mnist_jax.errors import first_line
from mnist_jax.storage import records
from mnist_jax.storage.records import RecordsError
from mnist_jax.storage.stored_config import NO_FACTS, Facts

try:
    import fcntl
except ImportError:  # Windows, where runs are not locked
    fcntl = None

_FILES = (records.RESULT, records.METRICS, records.PREDICTIONS, records.CONFIG)
# Checkpoints last: without a config they say that something is left to be removed.
_FOLDERS = (
    records.FIGURES,
    records.TENSORBOARD,
    records.EXPORT,
    records.DAMAGED,
    records.CHECKPOINTS,
)


class InUseError(RecordsError):
    """Another process trains in the folder."""


def parse(text: str, flag: str = "workdir") -> Path:
    """The folder that a person gave by a flag, `~` included; nothing is made.

    Raises:
      RecordsError: no folder can be there.
    """
    try:
        path = Path(text).expanduser()
        str(path).encode()
        if not text or (path.exists() and not path.is_dir()):
            raise NotADirectoryError(20, "not a folder")
        return path
    except (OSError, RuntimeError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        shown = text.encode(errors="backslashreplace").decode()
        raise RecordsError(
            f"--{flag}={shown} cannot be used ({reason}): give another folder"
        ) from error


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Keeps other processes from training in `workdir`, which is made if need be.

    The operating system holds the lock and drops it when its owner ends, however that
    comes about.

    Raises:
      InUseError: another process holds it.
      RecordsError: the folder cannot be written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = (workdir / records.LOCK).open("a+")
    except OSError as error:
        raise _unwritable(workdir, error) from error
    with file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                file.seek(0)
                raise InUseError(
                    f"{workdir} is in use by process {file.read().strip() or '?'}: "
                    "wait for it, stop it, or give another --workdir"
                ) from None
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise _unwritable(workdir, error) from error
            logging.warning("%s cannot be locked (%s)", workdir, error.strerror)
        yield


def initialise(
    workdir: Path,
    settings: Mapping[str, Any],
    data_sha256: str,
    overwrite: bool,
    facts: Facts = NO_FACTS,
) -> None:
    """Makes `workdir` the folder of the run with these settings.

    Args:
      workdir: made if it does not exist.
      settings, data_sha256, facts: what config.json will hold.
      overwrite: first remove the files of the run that is there, and nothing else.

    Raises:
      RecordsError: the folder cannot be written, or holds what belongs to no run;
        nothing was removed.
    """
    try:
        unknown = (
            not (workdir / records.CONFIG).exists()
            and (workdir / records.CHECKPOINTS).exists()
        )
        if unknown and not overwrite:
            raise RecordsError(
                f"{workdir} holds checkpoints without a {records.CONFIG}: give another "
                "--workdir, or remove them with --overwrite"
            )
        if overwrite:
            _check_removable(workdir)
            for name in _FILES:
                (workdir / name).unlink(missing_ok=True)
            for name in _FOLDERS:
                if (workdir / name).is_symlink():
                    (workdir / name).unlink()  # what it points to is kept
                elif (workdir / name).exists():
                    shutil.rmtree(workdir / name)
        records.write_config(workdir, settings, data_sha256, facts)
    except OSError as error:
        raise _unwritable(workdir, error) from error


def _check_removable(workdir: Path) -> None:
    """Refuses before the first removal what would stop at a later one.

    Raises:
      RecordsError: there is no run, a file is where a run has a folder, or the other
        way round, or a folder must not be changed.
    """
    # What lasts longest of a run that is removed, see `_FOLDERS`, and what comes first.
    is_run = any((workdir / x).exists() for x in (records.CONFIG, records.CHECKPOINTS))
    for name in (*_FILES, *_FOLDERS):
        path = workdir / name
        if not is_run and path.exists():
            raise RecordsError(
                f"{workdir} holds {name}, but no run, and --overwrite removes nothing "
                "else: give another --workdir"
            )
        if path.is_symlink() or not path.exists():
            continue
        if path.is_dir() != (name in _FOLDERS):
            expected = "folder" if name in _FOLDERS else "file"
            raise RecordsError(
                f"{path} is no {expected}, so it is of no run and --overwrite keeps "
                "it: move it away, or give another --workdir"
            )
        for folder, _, _ in os.walk(path):
            if not os.access(folder, os.W_OK | os.X_OK):
                raise RecordsError(
                    f"{folder} must not be changed, nothing was removed: give the "
                    "right to write there, or another --workdir"
                )


def _unwritable(workdir: Path, error: OSError) -> RecordsError:
    return RecordsError(
        f"--workdir={workdir} cannot be written ({error.strerror or error}): give a "
        "folder that can, with room on its disk"
    )
