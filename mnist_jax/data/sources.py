"""The registry of data sets: what they are and where they come from."""

import dataclasses
from collections.abc import Callable

from mnist_jax.data.dataset import Arrays

_DIGIT_NAMES = tuple("0123456789")


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set of grey-scale images, published as four IDX files.

    One of other images or classes, or without a download, is one entry of `DATASETS`.
    """

    description: str
    class_names: tuple[str, ...] = ()  # none: those of the prepared copy
    homepage: str = ""
    citation: str = ""
    image_shape: tuple[int, int, int] = (28, 28, 1)  # height, width, channels
    # Folders of the gzipped files under MNIST's names, in the order they are tried.
    base_urls: tuple[str, ...] = ()
    # SHA-256 sums as tfds writes them, relative to its `url_checksums` folder.
    checksums: str = ""
    # Returns the arrays and their provenance, for a data set that needs no files.
    make_arrays: Callable[[], tuple[Arrays, str]] | None = None
    # A person's own image files, see image_folder.py; each folder has its own classes.
    is_image_folder: bool = False
    # So few images that a run needs the presets of scikit-learn's digits.
    is_small: bool = False

    def __post_init__(self):
        if self.base_urls and not self.checksums:
            raise ValueError("base_urls without checksums; expected both")


def _make_digits() -> tuple[Arrays, str]:
    # Not at the top: scikit-learn takes a second to import.
    from mnist_jax.data import digits

    return digits.make_arrays()


DATASETS = {
    "mnist": Source(
        description="The MNIST database of handwritten digits: 60,000 training and "
        "10,000 test images.",
        homepage="http://yann.lecun.com/exdb/mnist/",
        citation="LeCun, Bottou, Bengio and Haffner: Gradient-based learning applied "
        "to document recognition. Proceedings of the IEEE 86(11), 1998, 2278-2324.",
        class_names=_DIGIT_NAMES,
        base_urls=(
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
        ),
        checksums="mnist.txt",
    ),
    "fashion_mnist": Source(
        description="Fashion-MNIST, Zalando's article images in MNIST's form: 60,000 "
        "training and 10,000 test images.",
        homepage="https://github.com/zalandoresearch/fashion-mnist",
        citation="Xiao, Rasul and Vollgraf: Fashion-MNIST: a Novel Image Dataset for "
        "Benchmarking Machine Learning Algorithms. arXiv:1708.07747, 2017.",
        class_names=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        base_urls=(
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        ),
        checksums="fashion_mnist.txt",
    ),
    "kmnist": Source(
        description="Kuzushiji-MNIST, cursive Japanese characters in MNIST's form: "
        "60,000 training and 10,000 test images.",
        homepage="https://codh.rois.ac.jp/kmnist/",
        citation="Clanuwat, Bober-Irizar, Kitamoto, Lamb, Yamamoto and Ha: Deep "
        "Learning for Classical Japanese Literature. arXiv:1812.01718, 2018.",
        class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        base_urls=("https://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
        checksums="kmnist.txt",
    ),
    "digits": Source(
        description="The 1,797 handwritten 8x8 digits that scikit-learn carries, "
        "enlarged to MNIST's form, with a fixed stratified split of 1,400 training and "
        "397 test images. A writer may occur in both parts.",
        homepage="https://archive.ics.uci.edu/dataset/80/"
        "optical+recognition+of+handwritten+digits",
        citation="Alpaydin and Kaynak: Optical Recognition of Handwritten Digits. UCI "
        "Machine Learning Repository, 1998. doi:10.24432/C50P49.",
        class_names=_DIGIT_NAMES,
        make_arrays=_make_digits,
        is_small=True,
    ),
    "folder": Source(
        description="A person's own images, a sub-folder for each class.",
        is_image_folder=True,
        is_small=True,
    ),
}

NAMES = ("auto", *DATASETS)


def is_image_folder(name: str) -> bool:
    """Whether the images are a person's own files; False of 'auto' and what is none."""
    return name in DATASETS and DATASETS[name].is_image_folder
