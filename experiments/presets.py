"""How accurate is each model's preset, and how long does it take?

    python experiments/presets.py --dataset=mnist --seeds=0,1,2
    python experiments/presets.py --models=cnn --preset=fast --seeds=0,1,2,3,4,5,6,7,8,9

Runs `launch.py` once per model and seed, each in a process of its own, so that the
wall time is what a person waits at first: start, data, compilation (no program comes
from the cache), training, evaluation and figures. A finished run of the same settings
is not repeated. Writes <preset>-<dataset>.json, .md (the table in the README) and .png
under --workdir.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from absl import app, flags
from study.page import markdown, write_all
from study.runs import spread

from mnist_jax import models, plots, records, train
from mnist_jax.config import PRESET_NAMES, ConfigError, make_config

LAUNCH = Path(__file__).parent.parent / "launch.py"

_DATASET = flags.DEFINE_string("dataset", "mnist", "a data set other than auto")
_MODELS = flags.DEFINE_list("models", list(models.MODELS), "models to run")
_PRESET = flags.DEFINE_enum("preset", "default", PRESET_NAMES, "which of its presets")
_SEEDS = flags.DEFINE_list("seeds", ["0"], "seeds to run each model with")
_WORKDIR = flags.DEFINE_string("workdir", "runs/presets", "where to write")


def run(model: str, seed: str, workdir: Path) -> dict[str, Any]:
    """One finished run: its result, with the wall time of the process."""
    wall = workdir / "wall_seconds.json"
    if not (wall.exists() and is_complete(model, seed, workdir)):
        began = time.perf_counter()
        subprocess.run(
            [
                sys.executable,
                str(LAUNCH),
                f"--model={model}",
                f"--dataset={_DATASET.value}",
                f"--preset={_PRESET.value}",
                f"--seed={seed}",
                f"--workdir={workdir}",
                "--nocompilation_cache",
                "--overwrite",  # an unfinished run would spoil the wall time
            ],
            check=True,
        )
        seconds = time.perf_counter() - began
        records.write_atomically(wall, json.dumps(seconds).encode())
    result = records.read_result(workdir)
    return {**result, "wall_seconds": json.loads(wall.read_text())}


def is_complete(model: str, seed: str, workdir: Path) -> bool:
    """Whether `workdir` holds this run, with the settings of today's preset."""
    config = make_config(model, _DATASET.value, _PRESET.value, seed=int(seed))
    try:
        return train.check_workdir(config, workdir) is not None
    except (ConfigError, records.RecordsError):
        return False


def summarize(model: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds; the spread is the standard deviation, 0 for one seed."""
    accuracies = [result["test_accuracy"] for result in results]
    mean, deviation = spread(accuracies)
    return {
        "model": model,
        "num_params": results[0]["num_params"],
        "epochs": results[0]["epochs"],
        "num_seeds": len(results),
        "test_accuracy": mean,
        "spread": deviation,
        "lowest": min(accuracies),
        **{
            key: spread([result[key] for result in results])[0]
            for key in ("wall_seconds", "train_seconds", "compile_seconds")
        },
    }


HEADS = (
    "model", "parameters", "epochs", "test accuracy", "lowest", "training", "in all",
)  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    return markdown(
        HEADS,
        [
            (
                row["model"],
                f"{row['num_params']:,}",
                str(row["epochs"]),
                f"{row['test_accuracy']:.2%} ± {100 * row['spread']:.2f}",
                f"{row['lowest']:.2%}",
                f"{row['train_seconds']:.0f} s",
                f"{row['wall_seconds']:.0f} s",
            )
            for row in rows
        ],
    )


def main(argv: list[str]) -> None:
    del argv
    workdir = Path(_WORKDIR.value)
    rows = []
    for model in _MODELS.value:
        results = [
            run(
                model,
                seed,
                workdir / f"{_DATASET.value}-{_PRESET.value}-{model}-{seed}",
            )
            for seed in _SEEDS.value
        ]
        rows.append(summarize(model, results))
    name = f"{_PRESET.value}-{_DATASET.value}"
    write_all(workdir, {f"{name}.json": rows, f"{name}.md": table(rows)})
    title = f"{_DATASET.value}, {_PRESET.value} preset, {len(_SEEDS.value)} seeds"
    plots.draw_comparison(workdir / f"{name}.png", rows, title)
    print(table(rows))


if __name__ == "__main__":
    app.run(main)
