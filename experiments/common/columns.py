"""Columns of tables whose rows are `runs.summarize`'s."""

from experiments.common.table import Column, column

MODEL = column("model", "model")
PARAMETERS = column("parameters", "num_params", "{:,}")
EPOCHS = column("epochs", "epochs", "{:d}")
TEST_ACCURACY = Column(
    "test accuracy",
    lambda row: f"{row['test_accuracy']:.2%} ± {100 * row['std']:.2f}",
)
LOWEST = Column("lowest", lambda row: f"{min(row['test_accuracies']):.2%}")
TRAINING = column("training", "train_seconds", "{:.0f} s")

# What each study of trained models begins with.
ACCURACY = (MODEL, PARAMETERS, EPOCHS, TEST_ACCURACY, LOWEST)
