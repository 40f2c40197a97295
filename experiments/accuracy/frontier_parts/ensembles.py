"""Mean probabilities of several runs, in combinations that were fixed beforehand."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.common.runs import Run

# Name -> models whose runs are averaged, all seeds of each, with the same weight.
OVER_FAMILIES = {
    "convolutional": ("cnn", "lenet5"),
    "recurrent": ("lstm", "gru", "fourway"),
    "cnn, mlp, gru and four directions": ("cnn", "mlp", "gru", "fourway"),
    "all families": None,
}


def mean(members: Sequence[np.ndarray]) -> np.ndarray:
    """float [N, K], of as many."""
    return np.mean(members, axis=0)


def summarize(
    all_runs: Mapping[str, Sequence[Run]], labels: np.ndarray
) -> list[dict[str, Any]]:
    """A row for each family's seeds, and for each of `OVER_FAMILIES` of which there is
    every model.

    Args:
      all_runs: by model.
      labels: int [N], of the test set.

    Returns:
      Rows with 'ensemble', 'num_members' and 'test_accuracy'.
    """
    by_model = {
        model: [run.predictions.probabilities for run in own]
        for model, own in all_runs.items()
    }
    groups = {f"{m}, its seeds": (m,) for m, own in by_model.items() if len(own) > 1}
    for name, models in OVER_FAMILIES.items():
        if set(own := models or tuple(by_model)) <= set(by_model):
            groups[name] = own
    rows = []
    for name, models in groups.items():
        own = [mean(by_model[model]) for model in models]
        if name in OVER_FAMILIES and len(models) < 2:
            continue
        correct = mean(own).argmax(-1) == labels
        rows.append(
            {
                "ensemble": name,
                "models": list(models),
                "num_members": sum(len(by_model[model]) for model in models),
                "test_accuracy": float(correct.mean()),
            }
        )
    return rows
