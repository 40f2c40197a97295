"""How many chips is a training step worth? On paper, checked on CPU.

    python -m experiments.speed.growth --tpu_python=path/to/python
        --cuda_python=path/to/python

A step on n chips is taken for what one chip computes of its share of the batch, and one
all-reduce of the gradients after that. What one chip computes is read off the program
that its compiler makes (see `compile_for_accelerators`) for 8, 128 and 1,024 images: on
an H100 the longer of operations over peak and bytes over bandwidth, and --kernel_us for
each kernel; on a TPU v5e the compiler's own cycles. Between these batches, lines. The
all-reduce is by what is published of the links (`growth_parts/links.py`). Weak scaling:
1,024 images per chip, and the efficiency is a chip's time over that of n. Strong
scaling: --strong_batch images over all chips, by the speedup over one.

The check: the same sum on CPU devices, --batch_size images over all of them. One device
alone on one core is timed at each share of the batch, the all-reduce is timed alone,
and what they make together is set beside the time of real steps: 1 to 8 virtual devices
in one process, and 2 and 4 processes with a device each. Devices beyond the cores wait
for each other.

Writes growth.json, .md, weak.png, strong.png and report.html under --workdir. The check
takes 5 minutes on two cores, the compilers 15. Results: docs/accelerators.md.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from experiments.common import charts, machine, study_flags
from experiments.common.report import Page, own_command, write_all
from experiments.common.table import Table, column
from experiments.speed.accelerator_parts import compilers, targets
from experiments.speed.growth_parts import check, links
from mnist_jax import cli, models
from mnist_jax.errors import UserError
from mnist_jax.parallel import devices

_SHARES = (8, 128, 1_024)  # images per chip that are compiled for
_CHIPS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024)
_PRECISION = {"h100:1": "float32", "v5e:2x2": "bfloat16"}
_WORTH = 0.5  # of a chip's time: with less, half of the chips are for nothing
# Four units of 128 x 128 multiply-adds (cloud.google.com/tpu/docs/v5e).
_V5E_FLOPS_PER_CYCLE = 4 * 128**2 * 2


class GrowthError(UserError):
    """A measurement that failed."""


PREDICTED = (
    column("target", "target"),
    column("model", "model"),
    column("1,024 images, us", "step", "{:,.0f}"),
    column("all-reduce of 8, us", "reduce_8", "{:,.0f}"),
    column("of 1,024, us", "reduce_1024", "{:,.0f}"),
    column("weak: 8 chips", "weak_8", "{:.0%}"),
    column("1,024 chips", "weak_1024", "{:.0%}"),
    column("worth it to", "weak_most", "{:,}"),
    column("strong: 8 chips", "strong_8", "{:.1f}"),
    column("worth it to", "strong_most", "{:,}"),
    column("with speedup", "strong_best", "{:.1f}"),
)
CHECKED = (
    column("model", "model"),
    column("devices", "num_devices"),
    column("processes", "num_processes"),
    column("all-reduce alone, ms", "all_reduce_ms", "{:.2f}"),
    column("predicted, ms", "predicted_ms", "{:.1f}"),
    column("measured, ms", "measured_ms", "{:.1f}"),
    column("measured over predicted", "ratio", "{:.2f}"),
)


def step_seconds(row: Mapping[str, Any], kernel_seconds: float) -> float:
    """What one chip computes in a step, by what its compiler says.

    Args:
      row: of `compile_for_accelerators`.
      kernel_seconds: of each kernel of a GPU.
    """
    target = targets.find(row["target"])
    if target.platform == "tpu":
        clock = target.flops["bfloat16"] / _V5E_FLOPS_PER_CYCLE
        return row["cycles"] / clock
    return row["roofline_seconds"] + row["kernels"] * kernel_seconds


def predict(
    rows: Sequence[Mapping[str, Any]], kernel_seconds: float, strong_batch: int
) -> dict[str, Any]:
    """A row of `PREDICTED`, with efficiencies and speedups by chips.

    Args:
      rows: of one target and model, for each of `_SHARES`.
      kernel_seconds: see `step_seconds`.
      strong_batch: images over all chips in strong scaling.
    """
    seconds = [step_seconds(row, kernel_seconds) for row in rows]
    target = rows[0]["target"]

    def compute(share: float) -> float:
        if share > _SHARES[-1]:  # as much more for each further image
            slope = (seconds[-1] - seconds[-2]) / (_SHARES[-1] - _SHARES[-2])
            return seconds[-1] + slope * (share - _SHARES[-1])
        return float(np.interp(share, _SHARES, seconds))

    def all_reduce(chips: int) -> float:
        # Parameters, and two numbers for the metrics.
        return links.ALL_REDUCE[target](4 * rows[0]["num_params"] + 8, chips)

    weak = {n: compute(1_024) / (compute(1_024) + all_reduce(n)) for n in _CHIPS}
    one = compute(strong_batch)
    strong = {n: one / (compute(strong_batch / n) + all_reduce(n)) for n in _CHIPS}
    most = max(n for n in _CHIPS if strong[n] / n >= _WORTH)
    return {
        "target": target,
        "model": rows[0]["model"],
        "step": 1e6 * compute(1_024),
        **{f"reduce_{n}": 1e6 * all_reduce(n) for n in (8, 1_024)},
        **{f"weak_{n}": weak[n] for n in (8, 1_024)},
        "weak_most": max(n for n in _CHIPS if weak[n] >= _WORTH),
        "strong_8": strong[8],
        "strong_most": most,
        "strong_best": strong[most],
        "weak": weak,
        "strong": strong,
    }


def compile_all(
    pythons: Mapping[str, str], names: Sequence[str]
) -> list[list[dict[str, Any]]]:
    """For each target and model the rows of `_SHARES`."""
    found = []
    for target in links.ALL_REDUCE:
        platform = targets.find(target).platform
        if platform not in pythons:
            continue
        for model in names:
            precision, rows = _PRECISION[target], []
            if precision not in models.precisions(model):
                precision = "float32"
            for share in _SHARES:
                chips = 4 if platform == "tpu" else 1
                rows.append(
                    compilers.measure(
                        pythons[platform],
                        target,
                        model,
                        precision,
                        share * chips,
                    )
                )
            found.append(rows)
            say(f"compiled {model} for {target}")
    return found


def draw(rows: Sequence[Mapping[str, Any]], key: str, title: str) -> bytes:
    """Of each target and model the values by chips."""
    series = {
        f"{row['model']}, {row['target'].partition(':')[0]}": (
            list(row[key]), list(row[key].values())
        )
        for row in rows
    }  # fmt: skip
    label = "efficiency" if key == "weak" else "speedup over one chip"
    axes = {"xscale": "log"} | ({} if key == "weak" else {"yscale": "log"})
    return charts.lines(series, ("chips", label), title, **axes)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def define_flags() -> None:
    compilers.define_flags()
    flags.DEFINE_list("models", ["linear", "mlp", "cnn", "gru"], "models to train")
    flags.DEFINE_float("kernel_us", 1.5, "taken for the start of a GPU's kernel", 0.0)
    flags.DEFINE_integer("strong_batch", 8_192, "images over all chips", 1_024)
    flags.DEFINE_integer("batch_size", 1_024, "images of the check's steps", 8)
    flags.DEFINE_float("seconds", 1.0, "of steps that the check times at once", 0.0)
    flags.DEFINE_string("workdir", "runs/growth", "where to write")


def study() -> None:
    given = flags.FLAGS
    names = study_flags.names("models", given.models, list(models.MODELS))
    check.check_batch(given.batch_size)
    workdir: Path = study_flags.workdir(given)
    pythons = compilers.find(given)
    compiled = compile_all(pythons, names)
    predicted = [
        predict(rows, given.kernel_us * 1e-6, given.strong_batch) for rows in compiled
    ]
    checked = []
    for model in names:
        checked += check.check(model, given.batch_size, given.seconds, say, GrowthError)
    paper, cpu = Table(PREDICTED, predicted), Table(CHECKED, checked)
    page = Page("Growth")
    files: dict[str, Any] = {
        "growth.json": {
            "command": own_command(),
            "cpu": machine.cpu_name(),
            "cores": devices.count_cores(),
            "predicted": predicted,
            "rows": checked,
        },
        "growth.md": f"{cpu.to_markdown()}\n{paper.to_markdown() if predicted else ''}",
    }
    page.table(cpu)
    if predicted:
        page.table(paper)
        weak = "Weak scaling: 1,024 images per chip"
        strong = f"Strong scaling: {given.strong_batch:,} images over all chips"
        for key, caption in (("weak", weak), ("strong", strong)):
            png = files[f"{key}.png"] = draw(predicted, key, caption)
            page.figure(png, caption)
    write_all(workdir, files | {"report.html": page})
    print(cpu.to_text(), *([paper.to_text()] if predicted else []), sep="\n")


main = cli.make_main(study, "nothing was written")

if __name__ == "__main__":
    define_flags()
    app.run(main)
