"""Where a data set comes from: code, raw IDX files or a download."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core.download import checksums

from mnist_jax.data import idx
from mnist_jax.data.dataset import DatasetError, Original
from mnist_jax.data.sources import DATASETS, Source


def read(name: str, raw_dir: Path | None, scratch: Path) -> Original:
    """Reads a data set as it was published.

    Args:
      name: key of `DATASETS`.
      raw_dir: folder of the four IDX files; None: they are downloaded.
      scratch: folder for downloads.

    Raises:
      DatasetError: the files are missing, damaged or not to be had.
    """
    source = DATASETS[name]
    if source.make_arrays:
        arrays, provenance = source.make_arrays()
        return Original(arrays, source.class_names, provenance)
    if raw_dir:
        paths = idx.require(raw_dir)
        arrays = idx.read(paths, source)
        provenance = f"raw files in {raw_dir}, {_verify(paths, recorded_sums(source))}"
        return Original(arrays, source.class_names, provenance)
    if not source.base_urls:
        raise DatasetError(
            f"{name}: not prepared yet, and it has no download; expected the folder of "
            "its four IDX files; give it by --raw_dir"
        )
    # Not at the top: needed only here.
    from mnist_jax.data import download

    paths, base_url = download.fetch(
        name, source.base_urls, recorded_sums(source), scratch
    )
    provenance = f"downloaded from {base_url}, SHA-256 verified"
    return Original(idx.read(paths, source), source.class_names, provenance)


def recorded_sums(source: Source) -> dict[str, str]:
    """SHA-256 sums by file name, which tfds records; empty if it has none."""
    if not source.checksums:
        return {}
    path = tfds.core.tfds_path("url_checksums") / source.checksums
    infos = checksums.load_url_infos(path).values()
    return {info.filename: info.checksum for info in infos}


def _verify(paths: Mapping[str, Path], sums: Mapping[str, str]) -> str:
    """Says whether the raw files are, byte for byte, the published ones."""
    if not sums:
        return "SHA-256 NOT verified (none is recorded)"
    unverified = []
    for part, path in paths.items():
        if path.suffix != ".gz":
            unverified.append(f"{path.name} is not gzipped")
            continue
        recorded = sums[f"{idx.FILES[part]}.gz"]
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != recorded:
            logging.warning(
                "%s: SHA-256 differs from the recorded %s; the file is whole, so "
                "it is used, but it may not be the original",
                path,
                recorded,
            )
            unverified.append(f"{path.name} differs")
    if unverified:
        return f"SHA-256 NOT verified ({', '.join(unverified)})"
    return "SHA-256 verified"
