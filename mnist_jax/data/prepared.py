"""Prepared data sets on disk: made in one step as ArrayRecord, read as arrays."""

import contextlib
import io
import json
import os
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.proto import tf_example_pb2

from mnist_jax import digests, signals
from mnist_jax.data import builders, idx, originals
from mnist_jax.data.dataset import Arrays, Dataset, DatasetError
from mnist_jax.data.sources import DATASETS
from mnist_jax.errors import first_line

_FEATURES = "tensorflow_datasets.core.features."


def exists(name: str, data_dir: Path) -> bool:
    """Whether a data set is prepared under `data_dir`."""
    # os.path: False for a folder whose name is too long or that may not be read.
    return os.path.exists(builders.folder(name, data_dir))


def prepare(name: str, data_dir: Path, raw_dir: Path | None) -> None:
    """Prepares a data set under `data_dir`.

    All is built in a temporary folder and moved in one step, so that neither a
    failure nor a second process at the same time leaves anything half done.

    Raises:
      DatasetError: the source or `data_dir` cannot be used.
    """
    target = builders.folder(name, data_dir)
    logging.info("Preparing %s in %s", name, target)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with signals.temporary_folder(prefix=".preparing-", dir=data_dir) as scratch:
            built = _build(name, scratch, raw_dir)
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


def read(name: str, data_dir: Path) -> Dataset:
    """Reads a prepared data set.

    Raises:
      DatasetError: the files are damaged.
    """
    source = DATASETS[name]
    path = builders.folder(name, data_dir)
    try:
        _check_features(path)
        builder = tfds.builder_from_directory(path)
        parts = builder.as_data_source(
            deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )
        arrays = {
            **_decode("train", parts["train"], source.image_shape),
            **_decode("test", parts["test"], source.image_shape),
        }
        metadata = dict(builder.info.metadata.items())
        sha256 = digests.of_arrays(arrays)
        # Absent from data that were prepared before it was stored.
        if metadata.get("sha256", sha256) != sha256:
            raise ValueError("SHA-256 differs from the one stored with them")
        return Dataset(
            name=name,
            class_names=source.class_names,
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


def require_equal(name: str, data_dir: Path, raw_dir: Path) -> None:
    """Checks that a prepared data set is the one in a folder of raw files.

    Raises:
      DatasetError: it is not, or one of the two cannot be read.
    """
    arrays = idx.read(idx.require(raw_dir), DATASETS[name])
    if digests.of_arrays(arrays) != _stored_sha256(name, data_dir):
        raise DatasetError(
            f"--raw_dir={raw_dir}: not the data of the prepared "
            f"{builders.folder(name, data_dir)}; expected the same images and labels; "
            "choose another --data_dir, or leave --raw_dir out"
        )


def _stored_sha256(name: str, data_dir: Path) -> str:
    """The digest of a prepared data set, which is read where none is stored."""
    path = builders.folder(name, data_dir) / "metadata.json"
    try:
        return json.loads(path.read_text())["sha256"]
    except (OSError, ValueError, LookupError, TypeError):
        return read(name, data_dir).sha256


def _build(name: str, scratch: Path, raw_dir: Path | None) -> str:
    """Prepares under `scratch`; returns the folder it made there."""
    arrays, provenance = originals.read(name, raw_dir, scratch)
    metadata = {"provenance": provenance, "sha256": digests.of_arrays(arrays)}
    builder = builders.make_builder(name, str(scratch), arrays, metadata)
    tfds.disable_progress_bar()
    # tfds prints that it prepares into the temporary folder.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(
            download_dir=scratch / "downloads",
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
