"""The data sets as tfds builders, which write arrays that were read before.

Their names differ from tfds's own, whose TFRecord files in the same data_dir
could not be read without TensorFlow.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mnist_jax.data.dataset import Arrays
from mnist_jax.data.sources import DATASETS


class _ArraysBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes the arrays and metadata that it is given."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self, name: str, arrays: Arrays, metadata: dict[str, str], **kwargs: Any
    ):
        """name: key of `DATASETS`; arrays: its data; the rest as in tfds."""
        self._source = DATASETS[name]
        self._arrays = arrays
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
                    "label": tfds.features.ClassLabel(names=self._source.class_names),
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
        images, labels = self._arrays[f"{part}_images"], self._arrays[f"{part}_labels"]
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


def make_builder(
    name: str, data_dir: str, arrays: Arrays, metadata: dict[str, str]
) -> tfds.core.DatasetBuilder:
    """The builder of a data set, which writes below `folder(name, data_dir)`."""
    given = dict(name=name, arrays=arrays, metadata=metadata, data_dir=data_dir)
    if name == "digits":
        return MnistJaxDigits(**given)
    return MnistJaxIdx(config=name, **given)


def folder(name: str, data_dir: Path) -> Path:
    """Where tfds lays a data set."""
    if name == "digits":
        return data_dir / MnistJaxDigits.name / str(MnistJaxDigits.VERSION)
    return data_dir / MnistJaxIdx.name / name / str(MnistJaxIdx.VERSION)
