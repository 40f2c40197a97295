"""Prepared data sets on disk: made in one step as ArrayRecord, read as arrays."""

import contextlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.proto import tf_example_pb2

from mnist_jax.datasets import idx
from mnist_jax.datasets.builders import MnistJaxDigits, MnistJaxIdx

_FEATURES = "tensorflow_datasets.core.features."


def prepare(name: str, data_dir: Path, raw_dir: Path | None) -> None:
    """Prepares a data set under `data_dir`, unless it is there already.

    All is built in a temporary folder and moved in one step, so that neither a
    failure nor a second process at the same time leaves anything half done.

    Raises:
      idx.DatasetError: the source or `data_dir` cannot be used.
    """
    target = _prepared_dir(name, data_dir)
    if os.path.exists(target):
        return
    logging.info("Preparing %s in %s", name, target)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=".preparing-", dir=data_dir, ignore_cleanup_errors=True
        ) as scratch:
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
        raise idx.DatasetError(
            f"{data_dir}: cannot prepare {name} there ({_reason(error)}); "
            "expected a folder with free space to write to; choose another --data_dir"
        ) from error


def read(name: str, data_dir: Path) -> dict[str, Any]:
    """Reads a prepared data set.

    Returns:
      The fields of `Dataset` by name, but for the class names, which are not data.

    Raises:
      idx.DatasetError: the files are damaged.
    """
    path = _prepared_dir(name, data_dir)
    try:
        _check_features(path)
        builder = tfds.builder_from_directory(path)
        sources = builder.as_data_source(
            deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )
        train_images, train_labels = _decode(sources["train"])
        test_images, test_labels = _decode(sources["test"])
        return dict(
            name=name,
            provenance=builder.info.metadata["provenance"],
            train_images=train_images,
            train_labels=train_labels,
            test_images=test_images,
            test_labels=test_labels,
        )
    # tfds, protobuf and array_record each have errors of their own for bad files.
    except Exception as error:
        raise idx.DatasetError(
            f"{path}: the prepared data are damaged ({_first_line(error)}); "
            "expected the files as tfds wrote them; delete this folder and run again"
        ) from error


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


def _decode(source) -> tuple[np.ndarray, np.ndarray]:
    """All examples of a data source of serialized tf.Examples, in stored order.

    The arrays are filled straight from the parsed messages: tfds's own decoding,
    example by example, takes ten times as long.
    """
    pixels, labels = bytearray(), []
    for record in source.__getitems__(range(len(source))):
        feature = tf_example_pb2.Example.FromString(record).features.feature
        pixels += feature["image"].bytes_list.value[0]
        labels += feature["label"].int64_list.value
    images = np.frombuffer(pixels, np.uint8).reshape(len(source), 28, 28, 1)
    return images, np.array(labels, np.int32).reshape(len(source))


def _prepared_dir(name: str, data_dir: Path) -> Path:
    """Where tfds lays a data set."""
    if name == "digits":
        return data_dir / MnistJaxDigits.name / str(MnistJaxDigits.VERSION)
    return data_dir / MnistJaxIdx.name / name / str(MnistJaxIdx.VERSION)


def _build(name: str, scratch: str, raw_dir: Path | None) -> str:
    """Downloads and prepares under `scratch`; returns the folder it made there."""
    if name == "digits":
        builder = MnistJaxDigits(data_dir=scratch)
    else:
        builder = MnistJaxIdx(data_dir=scratch, config=name, raw_dir=raw_dir)
    tfds.disable_progress_bar()
    # tfds prints that it prepares into the temporary folder.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(
            download_dir=os.path.join(scratch, "downloads"),
            download_config=tfds.download.DownloadConfig(
                try_download_gcs=False, force_checksums_validation=True
            ),
            file_format="array_record",
        )
    return builder.data_dir


def _reason(error: Exception) -> str:
    """What the system says, without the path, or else the first line."""
    return getattr(error, "strerror", None) or _first_line(error)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
