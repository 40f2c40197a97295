"""How much better are several models than one?

    python experiments/ensemble.py --model=cnn --preset=fast --members=16

Trains one model with seeds 0, 1, 2, .. as lanes of one compiled program, and averages
the probabilities that k of them give each test image, for every k: all of them at
k = members, and for fewer the mean over subsets drawn at random.

Goes on where it was stopped. Writes ensemble.json, .md, .png and report.html under
--workdir. The command above takes five minutes on MNIST.

Result: on MNIST one has 99.21% of the test set right, four 99.27, sixteen 99.31.
"""

from pathlib import Path

import numpy as np
from absl import app, flags
from search.halving import Search
from study import figures, program, runs
from study.page import Page, markdown, write_all

from mnist_jax import datasets, metrics, models, parallel
from mnist_jax.config import PRESET_NAMES, make_config

_SUBSETS = 30  # of each size, at most

_MODEL = flags.DEFINE_enum("model", "mlp", list(models.MODELS), "model to train")
_MEMBERS = flags.DEFINE_integer("members", 16, "seeds to train", lower_bound=2)
_DATASET = flags.DEFINE_enum("dataset", "auto", datasets.NAMES, "as in launch.py")
_PRESET = flags.DEFINE_enum("preset", "default", PRESET_NAMES, "as in launch.py")
_EPOCHS = flags.DEFINE_integer("epochs", None, "instead of the preset's", lower_bound=1)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "as in launch.py")
_RAW_DIR = flags.DEFINE_string("raw_dir", None, "as in launch.py")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "default: runs/ensemble-<dataset>-<model>"
)


def score(probabilities: np.ndarray, labels: np.ndarray, size: int) -> dict:
    """Accuracy and calibration of `size` members together, over subsets of them.

    Args:
      probabilities: float [members, N, K].
      labels: int [N].
      size: of the subsets.
    """
    members = len(probabilities)
    rng = np.random.default_rng(size)
    subsets = {tuple(sorted(rng.permutation(members)[:size])) for _ in range(_SUBSETS)}
    if size == 1:
        subsets = {(i,) for i in range(members)}
    means = [probabilities[list(subset)].mean(0) for subset in sorted(subsets)]
    accuracies = [float((mean.argmax(-1) == labels).mean()) for mean in means]
    errors = [metrics.reliability(mean, labels).error for mean in means]
    return {
        "size": size,
        "subsets": len(subsets),
        "accuracy": float(np.mean(accuracies)),
        "lowest": min(accuracies),
        "highest": max(accuracies),
        "calibration_error": float(np.mean(errors)),
    }


def study() -> None:
    make = lambda dataset, seed: make_config(  # noqa: E731
        _MODEL.value,
        dataset,
        _PRESET.value,
        seed=seed,
        epochs=_EPOCHS.value,
        **runs.folders(flags.FLAGS),
    )
    make(_DATASET.value, 0)  # wrong settings are told before data is fetched
    parallel.start()
    dataset = datasets.prepare(_DATASET.value, _DATA_DIR.value, _RAW_DIR.value)
    name = f"ensemble-{dataset}-{_MODEL.value}"
    workdir = Path(_WORKDIR.value or Path("runs") / name)
    configs = [make(dataset, seed) for seed in range(_MEMBERS.value)]
    settings = [{"seed": config.seed} for config in configs]
    search = Search(workdir / "ensemble-runs.json", configs, settings)
    search.run()
    lanes = search.trained()
    probabilities = lanes.test_probabilities()
    sizes = range(1, len(configs) + 1)
    rows = [score(probabilities, lanes.dataset.test_labels, size) for size in sizes]

    heads = ("members", "test accuracy", "lowest", "highest", "ECE")
    shown = [row for row in rows if row["size"] in (1, 2, 4, 8, 16, 32, len(configs))]
    lines = [
        [
            str(row["size"]),
            *(f"{row[key]:.2%}" for key in ("accuracy", "lowest", "highest")),
            f"{row['calibration_error']:.2%}",
        ]
        for row in shown
    ]
    text = markdown(heads, lines, num_texts=0)
    title = f"Ensembles of {_MODEL.value} on {dataset}, {_PRESET.value} preset"
    percent = {
        key: [100 * row[key] for row in rows]
        for key in ("accuracy", "lowest", "highest")
    }
    png = figures.lines(
        {"mean over subsets": (list(sizes), percent["accuracy"])},
        ("members", "test accuracy, %"),
        title,
        {"mean over subsets": (percent["lowest"], percent["highest"])},
    )
    page = Page(title)
    page.table(heads, lines)
    page.figure(png, "Test accuracy of the mean probabilities of k seeds.")
    files = {"ensemble.json": rows, "ensemble.md": text, "ensemble.png": png}
    write_all(workdir, files | {"report.html": page})
    print(text)


if __name__ == "__main__":
    app.run(program.main_of(study))
