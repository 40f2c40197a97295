"""The data sets as tfds builders, which write arrays that were read before.

Their names differ from tfds's own, whose TFRecord files in the same data_dir
could not be read without TensorFlow.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mnist_jax.data.dataset import Copy, Original
from mnist_jax.data.sources import DATASETS, is_image_folder


class _ArraysBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes the data and metadata that it is given."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self, name: str, original: Original, metadata: dict[str, str], **kwargs: Any
    ):
        """name: key of `DATASETS`; original: its data; the rest as in tfds."""
        self._source = DATASETS[name]
        self._original = original
        self._metadata = metadata
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self._source.description,
            homepage=self._source.homepage,
            citation=self._source.citation,
            features=tfds.features.FeaturesDict(
                {
                    # Not Image: that encodes PNG by TensorFlow.
                    "image": tfds.features.Tensor(
                        shape=self._source.image_shape, dtype=np.uint8, encoding="bytes"
                    ),
                    "label": tfds.features.ClassLabel(names=self._original.class_names),
                }
            ),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(self._metadata),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        del dl_manager
        return {part: self._generate_examples(part) for part in ("train", "test")}

    def _generate_examples(self, part: str) -> Iterator[tuple[int, dict[str, Any]]]:
        arrays = self._original.arrays
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield i, {"image": image, "label": int(label)}


class MnistJaxIdx(_ArraysBuilder):
    """MNIST and the data sets published in its form, one configuration each."""

    @classmethod
    def get_builder_config(cls, name, version=None):
        """Made at use, so that an entry added to `DATASETS` later is found."""
        del version
        return tfds.core.BuilderConfig(
            name=name, description=DATASETS[name].description
        )


class MnistJaxDigits(_ArraysBuilder):
    """scikit-learn's digits in MNIST's form."""


class MnistJaxFolder(_ArraysBuilder):
    """A person's own images, a configuration for each content of their folder."""

    @classmethod
    def get_builder_config(cls, name, version=None):
        del version
        return tfds.core.BuilderConfig(name=name)


def make_builder(
    copy: Copy, original: Original, metadata: dict[str, str]
) -> tfds.core.DatasetBuilder:
    """The builder that writes the copy, in `folder(copy)`."""
    builder, config = _builder(copy)
    return builder(
        name=copy.name,
        original=original,
        metadata=metadata,
        data_dir=str(copy.data_dir),
        config=config or None,
    )


def folder(copy: Copy) -> Path:
    """Where tfds lays a copy."""
    builder, config = _builder(copy)
    return copy.data_dir / builder.name / config / str(builder.VERSION)


def _builder(copy: Copy) -> tuple[type[_ArraysBuilder], str]:
    """The class, and the name of its configuration, '' for none."""
    if copy.name == "digits":
        return MnistJaxDigits, ""
    if is_image_folder(copy.name):
        return MnistJaxFolder, copy.key[:32]
    return MnistJaxIdx, copy.name
