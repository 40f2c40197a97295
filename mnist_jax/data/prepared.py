"""Prepared data sets on disk: made in one step as ArrayRecord, read as arrays."""

import contextlib
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.proto import tf_example_pb2

from mnist_jax import digests, signals
from mnist_jax.data import builders, idx
from mnist_jax.data.dataset import Arrays, Copy, Dataset, DatasetError, Original
from mnist_jax.data.sources import DATASETS, is_image_folder
from mnist_jax.errors import first_line

_FEATURES = "tensorflow_datasets.core.features."


def exists(copy: Copy) -> bool:
    """Whether it is prepared."""
    # os.path: False for a folder whose name is too long or that may not be read.
    return os.path.exists(builders.folder(copy))


def find(name: str, data_dir: Path, sha256: str) -> Copy | None:
    """The copy of an image folder whose `Dataset.sha256` this is, if there is one."""
    pattern = builders.folder(Copy(name, data_dir, "*")).relative_to(data_dir)
    for folder in sorted(data_dir.glob(str(pattern))):
        copy = Copy(name, data_dir, folder.parent.name)
        if stored_sha256(copy) == sha256:
            return copy
    return None


def prepare(copy: Copy, read_original: Callable[[Path], Original]) -> None:
    """Prepares a data set.

    All is built in a temporary folder and moved in one step, so that neither a
    failure nor a second process at the same time leaves anything half done.

    Args:
      copy: what to prepare.
      read_original: given a folder for downloads.

    Raises:
      UserError: the source or `data_dir` cannot be used.
    """
    name, data_dir, target = copy.name, copy.data_dir, builders.folder(copy)
    logging.info("Preparing %s in %s", name, target)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with signals.temporary_folder(prefix=".preparing-", dir=data_dir) as scratch:
            built = _build(copy._replace(data_dir=scratch), read_original(scratch))
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.rename(built, target)
            except OSError:
                # Another process was faster; its files are as good.
                if not target.exists():
                    raise
    # array_record reports a full disk as RuntimeError.
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise DatasetError(
            f"{data_dir}: cannot prepare {name} there ({reason}); expected a folder "
            "with free space to write to; choose another --data_dir"
        ) from error


def read(copy: Copy) -> Dataset:
    """Reads a prepared data set.

    Raises:
      DatasetError: the files are damaged.
    """
    source = DATASETS[copy.name]
    class_names, shape = source.class_names, source.image_shape
    path = builders.folder(copy)
    try:
        _check_features(path)
        builder = tfds.builder_from_directory(path)
        if source.is_image_folder:
            features = builder.info.features
            class_names, shape = tuple(features["label"].names), features["image"].shape
        parts = builder.as_data_source(
            deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )
        arrays = {
            **_decode("train", parts["train"], shape),
            **_decode("test", parts["test"], shape),
        }
        metadata = dict(builder.info.metadata.items())
        sha256 = sha256_of(copy.name, arrays, class_names)
        # Absent from data that were prepared before it was stored.
        if metadata.get("sha256", sha256) != sha256:
            raise ValueError("SHA-256 differs from the one stored with them")
        return Dataset(
            name=copy.name,
            class_names=class_names,
            provenance=metadata["provenance"],
            sha256=sha256,
            **arrays,
        )
    # tfds, protobuf and array_record each have errors of their own for bad files.
    except Exception as error:
        raise DatasetError(
            f"{path}: the prepared data are damaged ({first_line(error)}); "
            "expected the files as tfds wrote them; delete this folder and run again"
        ) from error


def sha256_of(name: str, arrays: Arrays, class_names: Sequence[str]) -> str:
    """`Dataset.sha256`: of the four arrays by name.

    Of an image folder the names of the classes are part of the data.
    """
    if is_image_folder(name):
        names = np.frombuffer("\n".join(class_names).encode(), np.uint8)
        arrays = arrays | {"class_names": names}
    return digests.of_arrays(arrays)


def require_equal(copy: Copy, raw_dir: Path) -> None:
    """Checks that a prepared data set is the one in a folder of raw IDX files.

    Raises:
      DatasetError: it is not, or one of the two cannot be read.
    """
    arrays = idx.read(idx.require(raw_dir), DATASETS[copy.name])
    stored = stored_sha256(copy) or read(copy).sha256
    if digests.of_arrays(arrays) != stored:
        raise DatasetError(
            f"--raw_dir={raw_dir}: not the data of the prepared "
            f"{builders.folder(copy)}; expected the same images and labels; "
            "choose another --data_dir, or leave --raw_dir out"
        )


def stored_sha256(copy: Copy) -> str | None:
    """`Dataset.sha256` without reading the images.

    None where nothing is prepared, or it was prepared before the digest was stored.
    """
    try:
        return json.loads((builders.folder(copy) / "metadata.json").read_text()).get(
            "sha256"
        )
    except (OSError, ValueError, AttributeError):
        return None


def _build(copy: Copy, original: Original) -> str:
    """Prepares a copy; returns the folder it made."""
    metadata = {
        "provenance": original.provenance,
        "sha256": sha256_of(copy.name, original.arrays, original.class_names),
    }
    builder = builders.make_builder(copy, original, metadata)
    tfds.disable_progress_bar()
    # tfds prints that it prepares into the temporary folder.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(
            download_dir=copy.data_dir / "downloads",
            download_config=tfds.download.DownloadConfig(try_download_gcs=False),
            file_format="array_record",
        )
    return builder.data_dir


def _check_features(path: Path) -> None:
    """Refuses features that tfds does not have: it imports every module named there.

    Raises:
      ValueError: the file names something else.
    """
    nodes = [json.loads((path / "features.json").read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, dict | list):
            nodes += node.values() if isinstance(node, dict) else node
        elif isinstance(node, str) and "." in node and not node.startswith(_FEATURES):
            raise ValueError(
                f"features.json names {node!r}, not one of tfds's features"
            )


def _decode(part: str, source, image_shape: tuple[int, int, int]) -> Arrays:
    """All examples of a data source of serialized tf.Examples, in stored order.

    The arrays are filled straight from the parsed messages: tfds's own decoding,
    example by example, takes ten times as long.
    """
    pixels, labels = bytearray(), []
    for record in source.__getitems__(range(len(source))):
        feature = tf_example_pb2.Example.FromString(record).features.feature
        pixels += feature["image"].bytes_list.value[0]
        labels += feature["label"].int64_list.value
    images = np.frombuffer(pixels, np.uint8).reshape(len(source), *image_shape)
    return {
        f"{part}_images": images,
        f"{part}_labels": np.array(labels, np.int32).reshape(len(source)),
    }
