"""What would a GPU or TPU be asked to do in a training step?

    python -m experiments.speed.compile_for_accelerators --tpu_python=path/to/python
        --cuda_python=path/to/python

Compiles the training program of each model's preset, with --augment=shift where it
augments, for machines that are not there: slices of TPUs, of one host and of four, and
one and eight H100s. Each flag names the Python of an environment that has this package
and a compiler; without the flag its targets are left out:

    python -m venv tpu && tpu/bin/pip install -e '.[tpu]'
    python -m venv cuda && cuda/bin/pip install -e . 'jax[cuda12]'

Of each device's part of a step it counts, off the program's text, with loops as often
as they run: kernels, one for each operation that the device is asked for; operations
of matmuls and convolutions; bytes read and written, on TPUs those that leave the vector
memory; all-reduces. The compiler tells the memory of arguments and temporaries, and on
TPUs the cycles of each operation, of which the table has the share with matmuls. The
roofline is the longer of operations over the chip's peak and of bytes over its
bandwidth, as if no cache spared any. Nothing is run, so nothing here is a measured
time. GPU kernels are those of a compiler that cannot try which are fastest.

Writes accelerators.json after each row, and at the end .md, kernels.png, roofline.png
and report.html under --workdir. Takes 20 minutes on two cores. Results:
docs/accelerators.md.
"""

import json
import sys
from pathlib import Path
from typing import Any

from absl import app, flags

from experiments.common import charts, study_flags
from experiments.common.report import Page, write_all
from experiments.common.table import Column, Table, column
from experiments.speed.accelerator_parts import compilers, targets
from mnist_jax import cli, models
from mnist_jax.settings import ConfigError
from mnist_jax.storage import records

_PRECISIONS = ("float32", "bfloat16")


def _scaled(head: str, key: str, unit: float, form: str) -> Column:
    def text(row):
        return "" if row[key] is None else form.format(row[key] / unit)

    return Column(head, text)


COLUMNS = (
    column("target", "target"),
    column("model", "model"),
    column("precision", "precision"),
    column("compiled in, s", "compile_seconds", "{:.0f}"),
    _scaled("arguments, MB", "argument_bytes", 1e6, "{:.1f}"),
    _scaled("temporaries, MB", "temporary_bytes", 1e6, "{:.1f}"),
    column("all-reduces", "all_reduces", "{:.0f}"),
    _scaled("of kB", "all_reduce_bytes", 1e3, "{:,.0f}"),
    column("kernels", "kernels", "{:,.0f}"),
    _scaled("GFLOP", "flops", 1e9, "{:.2f}"),
    _scaled("MB moved", "bytes", 1e6, "{:,.1f}"),
    column("matmuls' share", "matmul_share", "{:.0%}"),
    _scaled("roofline, us", "roofline_seconds", 1e-6, "{:,.0f}"),
)


def draw(rows: list[dict[str, Any]], key: str, unit: float, label: str) -> bytes:
    """Bars of each target and precision by model, as a PNG file."""
    names = list(dict.fromkeys(row["model"] for row in rows))
    series: dict[str, list[float]] = {}
    for row in rows:
        name = f"{row['target']}, {row['precision']}"
        own = series.setdefault(name, [float("nan")] * len(names))
        own[names.index(row["model"])] = row[key] / unit
    title = f"A training step of {rows[0]['batch_size']:,} images on all devices"
    return charts.bars(series, names, label, title)


def define_flags() -> None:
    compilers.define_flags()
    flags.DEFINE_list("targets", list(targets.TARGETS), "what to compile for")
    flags.DEFINE_list("models", list(models.MODELS), "models to compile")
    flags.DEFINE_list("precisions", list(_PRECISIONS), "of matmuls")
    flags.DEFINE_integer("batch_size", 1024, "images per step, over all devices", 1)
    flags.DEFINE_string("workdir", "runs/accelerators", "where to write")


def study() -> None:
    given = flags.FLAGS
    names = study_flags.names("models", given.models, list(models.MODELS))
    precisions = study_flags.names("precisions", given.precisions, _PRECISIONS)
    chosen = study_flags.names("targets", given.targets, list(targets.TARGETS))
    workdir: Path = study_flags.workdir(given)
    pythons = compilers.find(given)
    chosen = [x for x in chosen if targets.TARGETS[x].platform in pythons]
    if not chosen:
        raise ConfigError(
            "--tpu_python and --cuda_python are not given: expected the Python of an "
            "environment that has the compiler of one of the --targets; see --help"
        )
    kinds = [(m, p) for m in names for p in precisions if p in models.precisions(m)]
    if not kinds:
        raise ConfigError(
            f"--precisions={','.join(precisions)}: none of these models has it; add "
            "float32, or give other --models"
        )
    rows: list[dict[str, Any]] = []
    for target in chosen:
        for model, precision in kinds:
            python = pythons[targets.TARGETS[target].platform]
            row = compilers.measure(python, target, model, precision, given.batch_size)
            rows.append(row)
            records.write_json(workdir / "accelerators.json", {"rows": rows})
            cells = Table(COLUMNS, [row]).cells()[0]
            print("  ".join(cells), file=sys.stderr, flush=True)
    table = Table(COLUMNS, rows)
    calls = {
        f"{row['target']} {row['model']} {row['precision']}": row["library_calls"]
        for row in rows
    }
    kernels = draw(rows, "kernels", 1, "kernels in a step")
    roofline = draw(rows, "roofline_seconds", 1e-6, "least time of a step, us")
    page = Page("Training steps, compiled for accelerators")
    page.table(table)
    page.figure(kernels, "What each device is asked for in a step.")
    page.figure(roofline, "By the chips' peak and bandwidth.")
    files = {
        "accelerators.md": f"{table.to_markdown()}\n{json.dumps(calls, indent=2)}\n",
        "kernels.png": kernels,
        "roofline.png": roofline,
        "report.html": page,
    }
    write_all(workdir, files)
    print(table.to_text())


main = cli.make_main(study, "rows so far are in accelerators.json")

if __name__ == "__main__":
    define_flags()
    app.run(main)
