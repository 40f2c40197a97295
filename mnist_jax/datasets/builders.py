"""The data sets as tfds builders.

Their names differ from tfds's own, whose TFRecord files in the same data_dir
could not be read without TensorFlow.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core.download import checksums

from mnist_jax.datasets import idx
from mnist_jax.datasets.descriptions import DIGITS, IDX_SETS, Description


class MnistJaxIdx(tfds.core.GeneratorBasedBuilder):
    """MNIST and the data sets published in its form, one configuration each."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=name, description=about.description)
        for name, about in IDX_SETS.items()
    ]

    def __init__(self, *, raw_dir: Path | None = None, **kwargs: Any):
        """As in tfds, with the four files in `raw_dir` instead of a download."""
        self._raw_dir = raw_dir
        super().__init__(**kwargs)

    @property
    def url_infos(self) -> dict[str, checksums.UrlInfo]:
        """tfds's SHA-256 sums, which it keeps for one host, for all our mirrors."""
        return {
            f"{base_url}{file_name}": info
            for base_url in self._about.base_urls
            for file_name, info in self._recorded.items()
        }

    @property
    def _about(self) -> Description:
        return IDX_SETS[self.builder_config.name]

    @property
    def _recorded(self) -> dict[str, checksums.UrlInfo]:
        path = tfds.core.tfds_path("url_checksums") / self._about.checksums
        infos = checksums.load_url_infos(path).values()
        return {info.filename: info for info in infos}

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, self._about)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        if self._raw_dir is None:
            # Not at the top: requests is slow to import and needed only here.
            from mnist_jax.datasets import download

            paths, source = download.fetch(
                dl_manager, self.builder_config.name, self._about.base_urls
            )
            splits = idx.read_splits(paths)
            provenance = f"downloaded from {source}, SHA-256 verified"
        else:
            paths = idx.require(self._raw_dir)
            splits = idx.read_splits(paths)
            provenance = f"raw files in {self._raw_dir}, {self._verify(paths)}"
        self.info.metadata["provenance"] = provenance
        return {
            split: self._generate_examples(*arrays) for split, arrays in splits.items()
        }

    def _generate_examples(self, images, labels):
        return _examples(images, labels)

    def _verify(self, paths: dict[str, Path]) -> str:
        """Says whether the raw files are, byte for byte, the published ones."""
        unverified = []
        for part, path in paths.items():
            if path.suffix != ".gz":
                unverified.append(f"{path.name} is not gzipped")
                continue
            recorded = self._recorded[f"{idx.FILES[part]}.gz"].checksum
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


class MnistJaxDigits(tfds.core.GeneratorBasedBuilder):
    """scikit-learn's digits in MNIST's form; they need no network."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, DIGITS)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        del dl_manager
        # Not at the top: scikit-learn takes a second to import.
        from mnist_jax.datasets import digits

        splits, self.info.metadata["provenance"] = digits.make_splits()
        return {
            split: self._generate_examples(*arrays) for split, arrays in splits.items()
        }

    def _generate_examples(self, images, labels):
        return _examples(images, labels)


def _info(builder, about: Description) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
        builder=builder,
        description=about.description,
        homepage=about.homepage,
        citation=about.citation,
        features=tfds.features.FeaturesDict(
            {
                # Not Image: that encodes PNG by TensorFlow.
                "image": tfds.features.Tensor(
                    shape=(28, 28, 1), dtype=np.uint8, encoding="bytes"
                ),
                "label": tfds.features.ClassLabel(names=about.class_names),
            }
        ),
        supervised_keys=("image", "label"),
        disable_shuffling=True,
        metadata=tfds.core.MetadataDict(),
    )


def _examples(images, labels) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbered examples for tfds, in the order given."""
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        yield i, {"image": image, "label": int(label)}
