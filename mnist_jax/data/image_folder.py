"""A person's own images: a folder that has a sub-folder of image files for each class.

What a prepared copy holds depends on the files' names and bytes, on how they are
preprocessed, and on nothing else: their digest is the key that it is found by.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging

from mnist_jax import digests, images
from mnist_jax.data.dataset import DatasetError, Original
from mnist_jax.data.sources import DATASETS
from mnist_jax.data.splits import split_test
from mnist_jax.errors import UserError, UserErrors

MIN_CLASSES, MAX_CLASSES = 2, 100
TEST_FRACTION = 0.2
# To be raised where the same files come to be other arrays: by another split, or by
# other pixels of `images.READERS`.
VERSION = 1

_EXPECTED = (
    f"expected {MIN_CLASSES} to {MAX_CLASSES}, one for each class, that hold its image "
    "files"
)


class Tree(NamedTuple):
    """The files of N images of K classes."""

    folder: Path
    preprocess: str  # key of `images.READERS`
    class_names: tuple[str, ...]  # K, sorted
    paths: tuple[Path, ...]  # N, by class and name
    labels: np.ndarray  # int32 [N]
    unused: tuple[str, ...]  # names of files beside the classes
    sha256: str  # of names relative to `folder`, contents and preprocessing


def scan(folder: Path, preprocess: str) -> Tree:
    """Finds the classes and their files, and reads the files' bytes.

    Hidden files and folders are skipped.

    Raises:
      DatasetError, UserErrors: there is no such folder, or it has not the form; each
        fault is a line.
    """
    folders, unused = _class_folders(folder)
    classes = {path.name: _entries(path) for path in folders}
    errors: list[UserError] = []
    found: dict[str, Path] = {}  # by the digest of the content
    sums, paths, labels = [], [], []
    for label, (name, files) in enumerate(classes.items()):
        if not name.isprintable() or name != name.strip():
            errors.append(
                DatasetError(
                    f"{str(folder / name)!r}: no name for a class; expected one that "
                    "can be printed, with no space around it; rename this folder"
                )
            )
        if len(files) < 2:
            found_here = "one image alone" if files else "no images"
            errors.append(
                DatasetError(
                    f"{folder / name}: {found_here}; expected 2 or more, for training "
                    "and test part; add some, or take this folder away"
                )
            )
        for path in files:
            try:
                digest = _digest(path)
            except UserError as error:
                errors.append(error)
                continue
            other = found.setdefault(digest, path)
            if other.parent != path.parent:
                errors.append(_same(other, path, "file"))
            sums.append((name, path.name, digest))
            paths.append(path)
            labels.append(label)
    if errors:
        raise UserErrors(errors)
    return Tree(
        folder=folder,
        preprocess=preprocess,
        class_names=tuple(classes),
        paths=tuple(paths),
        labels=np.array(labels, np.int32),
        unused=unused,
        sha256=digests.of_json([VERSION, preprocess, sums]),
    )


def read(tree: Tree) -> Original:
    """The images in MNIST's form, with the fixed stratified split into two parts.

    Raises:
      UserErrors: files that cannot be used, or the same image in two classes; each is
        a line.
      DatasetError: the files are not those of `scan` any more.
    """
    shape = DATASETS["folder"].image_shape[:2]
    reader = images.READERS[tree.preprocess]
    errors: list[UserError] = []
    found: dict[bytes, Path] = {}  # by the pixels
    pictures, num_twice = [], 0
    for path in tree.paths:
        try:
            picture = reader(path, shape)
        except images.ImageError as error:
            errors.append(error)
            continue
        other = found.setdefault(picture.tobytes(), path)
        num_twice += other != path
        if other.parent != path.parent:
            what = f"image, once prepared with --preprocess={tree.preprocess},"
            errors.append(_same(other, path, what))
        pictures.append(picture)
    if errors:
        raise UserErrors(errors)
    if scan(tree.folder, tree.preprocess).sha256 != tree.sha256:
        raise DatasetError(
            f"{tree.folder}: files were changed while they were read; nothing was "
            "prepared; give the same command again"
        )
    if num_twice:
        logging.warning(
            "%s: copies of another image of their class: %d; one of them may be in the "
            "training and the other in the test part, whose score is then too good",
            tree.folder,
            num_twice,
        )
    parts = dict(
        zip(("train", "test"), split_test(tree.labels, TEST_FRACTION, 0), strict=True)
    )
    stacked = np.stack(pictures)
    arrays = {f"{part}_images": stacked[indices] for part, indices in parts.items()}
    arrays |= {f"{part}_labels": tree.labels[x] for part, x in parts.items()}
    provenance = (
        f"{len(pictures)} images in {tree.folder.absolute()}, SHA-256 of names, files "
        f"and --preprocess={tree.preprocess} {tree.sha256}"
    )
    return Original(arrays, tree.class_names, provenance)


def warn_of_unused(tree: Tree) -> None:
    if tree.unused:
        logging.warning(
            "--raw_dir=%s: not used, as it is in no sub-folder: %s",
            tree.folder,
            _join(tree.unused),
        )


def _class_folders(folder: Path) -> tuple[list[Path], tuple[str, ...]]:
    """The sub-folders, and the names of what is beside them."""
    if not folder.is_dir():
        raise DatasetError(
            f"--raw_dir={folder}: no such folder; expected one with a sub-folder of "
            "image files for each class"
        )
    entries = _entries(folder)
    folders = [path for path in entries if path.is_dir()]
    if not folders:
        raise DatasetError(
            f"--raw_dir={folder}: no sub-folders; {_EXPECTED}; sort the images into "
            "some, or give another folder"
        )
    if len(folders) < MIN_CLASSES:
        raise DatasetError(
            f"--raw_dir={folder}: one class alone, {folders[0].name!r}; {_EXPECTED}; "
            "add another, or give the folder above"
        )
    if len(folders) > MAX_CLASSES:
        raise DatasetError(
            f"--raw_dir={folder}: {len(folders)} sub-folders; {_EXPECTED}; take some "
            "away, or give another folder"
        )
    return folders, tuple(path.name for path in entries if path not in folders)


def _entries(folder: Path) -> list[Path]:
    """What a folder holds and does not hide, sorted by name."""
    try:
        paths = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise DatasetError(
            f"{folder}: cannot be read ({error.strerror}); expected a folder of image "
            "files; check its rights"
        ) from error
    return sorted(paths, key=lambda path: path.name)


def _digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    if not path.is_file():  # nor opened: a device may never end
        raise DatasetError(
            f"{path}: no file; expected image files alone in the folder of a class; "
            "take it away"
        )
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DatasetError(
            f"{path}: cannot be opened ({error.strerror}); expected an image file; "
            "check its rights"
        ) from error


def _same(one: Path, other: Path, what: str) -> DatasetError:
    return DatasetError(
        f"{other}: the same {what} as {one}, of another class; expected each in one "
        "class; keep the right one"
    )


def _join(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
