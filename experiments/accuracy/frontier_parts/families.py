"""The families of models, and the best test accuracies on MNIST published for them."""

from typing import NamedTuple


class Published(NamedTuple):
    """A published test accuracy, from 0 to 1."""

    accuracy: float
    source: str


class Family(NamedTuple):
    """Models of one kind, one of which is trained here.

    Attributes:
      name: of the kind.
      model: that is trained.
      honest: best published figure known whose epoch was not chosen on the test set.
      headline: best known whose epoch was, or may have been.
      teacher: key of the family whose runs it learns from.
    """

    name: str
    model: str
    honest: Published | None = None
    headline: Published | None = None
    teacher: str | None = None

    @property
    def key(self) -> str:
        """Its name in flags and folders."""
        return f"{self.model}-distilled" if self.teacher else self.model


_CIRESAN = "Ciresan et al., 2010, elastic deformations, 12.1M parameters"
_SIMARD = "Simard et al., 2003, 800 hidden units, elastic deformations"
_M3 = "An et al., 2020, M3, 1.12M parameters"

# Means over seeds where a source has several. How they were found: docs/frontier.md.
FAMILIES = (
    Family("linear", "linear", Published(0.924, "LeCun et al., 1998, no deskewing")),
    Family("at most 697 parameters", "tiny"),
    Family("SimpleRNN on rows", "rnn"),
    Family(
        "LeNet-5", "lenet5", Published(0.992, "LeCun et al., 1998, with distortions")
    ),
    Family("LSTM on rows", "lstm"),
    Family("GRU on rows", "gru"),
    Family(
        "MLP", "mlp", Published(0.993, _SIMARD), Published(0.9965, _CIRESAN)
    ),
    Family("MLP, distilled from the CNN", "mlp", teacher="cnn"),
    Family(
        "four directions",
        "fourway",
        None,
        Published(0.9955, "Visin et al., 2015, ReNet"),
    ),
    Family(
        "single CNN",
        "cnn",
        Published(0.99699, f"{_M3}: last epochs of 30 seeds in its logs"),
        Published(0.99767, f"{_M3}: best epochs of the same"),
    ),
)  # fmt: skip

# Of 100 suspicious test images those 15 for whose label fewer than three of five people
# voted (Northcutt et al., "Pervasive Label Errors in Test Sets", 2021).
SUSPECTED_LABELS = (
    947, 1621, 1901, 2130, 2462, 2597, 2654, 3520, 3558, 5937, 6651, 6783, 8527, 9679,
    9729,
)  # fmt: skip
