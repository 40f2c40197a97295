"""Columns of tables whose rows are `runs.summarize`'s."""

from collections.abc import Mapping
from typing import Any

from experiments.common.table import Column, column


def with_spread(row: Mapping[str, Any], digits: int = 2) -> str:
    """The mean test accuracy in percent and, of several seeds, its deviation."""
    mean = f"{row['test_accuracy']:.{digits}%}"
    return mean if row["std"] is None else f"{mean} ± {100 * row['std']:.{digits}f}"


MODEL = column("model", "model")
PARAMETERS = column("parameters", "num_params", "{:,}")
EPOCHS = column("epochs", "epochs", "{:d}")
TEST_ACCURACY = Column("test accuracy", with_spread)
LOWEST = Column("lowest", lambda row: f"{min(row['test_accuracies']):.2%}")
TRAINING = column("training", "train_seconds", "{:.0f} s")

# What each study of trained models begins with.
ACCURACY = (MODEL, PARAMETERS, EPOCHS, TEST_ACCURACY, LOWEST)
