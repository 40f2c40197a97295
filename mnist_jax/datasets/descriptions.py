"""What the data sets are and where they come from; no code that reads them."""

import dataclasses

_DIGIT_NAMES = tuple("0123456789")


@dataclasses.dataclass(frozen=True)
class Description:
    """A data set of ten classes of 28x28 grey-scale images.

    `base_urls` are folders that hold the four gzipped IDX files under their usual
    names, in the order in which they are tried. `checksums` is a file of SHA-256
    sums in the tfds format, relative to tfds's own `url_checksums` folder.
    """

    description: str
    homepage: str
    citation: str
    class_names: tuple[str, ...]
    base_urls: tuple[str, ...] = ()
    checksums: str = ""


IDX_SETS = {
    "mnist": Description(
        description="The MNIST database of handwritten digits: 60,000 training and "
        "10,000 test images.",
        homepage="http://yann.lecun.com/exdb/mnist/",
        citation="""\
@article{lecun1998gradient,
  title={Gradient-based learning applied to document recognition},
  author={LeCun, Yann and Bottou, L{\\'e}on and Bengio, Yoshua and Haffner, Patrick},
  journal={Proceedings of the IEEE},
  volume={86},
  number={11},
  pages={2278--2324},
  year={1998}
}""",
        class_names=_DIGIT_NAMES,
        base_urls=(
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
        ),
        checksums="mnist.txt",
    ),
    "fashion_mnist": Description(
        description="Fashion-MNIST, Zalando's article images in MNIST's form: 60,000 "
        "training and 10,000 test images.",
        homepage="https://github.com/zalandoresearch/fashion-mnist",
        citation="""\
@article{xiao2017fashion,
  title={Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
         Algorithms},
  author={Xiao, Han and Rasul, Kashif and Vollgraf, Roland},
  journal={arXiv preprint arXiv:1708.07747},
  year={2017}
}""",
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
    "kmnist": Description(
        description="Kuzushiji-MNIST, cursive Japanese characters in MNIST's form: "
        "60,000 training and 10,000 test images.",
        homepage="https://codh.rois.ac.jp/kmnist/",
        citation="""\
@article{clanuwat2018deep,
  title={Deep Learning for Classical Japanese Literature},
  author={Clanuwat, Tarin and Bober-Irizar, Mikel and Kitamoto, Asanobu and
          Lamb, Alex and Yamamoto, Kazuaki and Ha, David},
  journal={arXiv preprint arXiv:1812.01718},
  year={2018}
}""",
        class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        base_urls=("https://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
        checksums="kmnist.txt",
    ),
}

DIGITS = Description(
    description="The 1,797 handwritten 8x8 digits that scikit-learn carries, enlarged "
    "to MNIST's form, with a fixed stratified split of 1,400 training and 397 test "
    "images. A writer may occur in both parts.",
    homepage="https://archive.ics.uci.edu/dataset/80/"
    "optical+recognition+of+handwritten+digits",
    citation="""\
@misc{alpaydin1998optical,
  title={Optical Recognition of Handwritten Digits},
  author={Alpaydin, Ethem and Kaynak, Cenk},
  howpublished={UCI Machine Learning Repository},
  doi={10.24432/C50P49},
  year={1998}
}""",
    class_names=_DIGIT_NAMES,
)
