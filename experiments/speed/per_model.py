"""What studies of one row per model share: their flags, and the way to their files."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from experiments.common import study_flags
from experiments.common.machine import cpu_name
from experiments.common.report import write_all
from experiments.common.table import Table
from mnist_jax import cli, data, models

flags.disclaim_key_flags()  # `--help` shows them as the study's own

Row = dict[str, Any]


def define_flags(name: str, models_help: str) -> None:
    """--models, --dataset and the folders; `name` is that of the study's files."""
    flags.DEFINE_list("models", list(models.MODELS), models_help)
    cli.define_settings(("dataset",), dataset="auto")
    study_flags.define_folders(f"runs/{name}")


def run(
    name: str,
    measure: Callable[..., Row],
    make_table: Callable[[Sequence[Row]], Table],
    start: Callable[[], None] = lambda: None,
) -> None:
    """Measures the models one after the other, tells each row, writes and prints all.

    Args:
      name: of the study's files.
      measure: (model, dataset, data_dir=, raw_dir=) -> a row.
      make_table: the table of the rows so far.
      start: called once the flags are found to be right.
    """
    given = flags.FLAGS
    names = study_flags.names("models", given.models, list(models.MODELS))
    folders = study_flags.folders(given)
    workdir = study_flags.workdir(given) or Path(f"runs/{name}")
    start()
    dataset = data.prepare(given.dataset, **folders)
    rows: list[Row] = []
    for model in names:
        rows.append(measure(model, dataset, **folders))
        print("  ".join(make_table(rows).cells()[-1]), file=sys.stderr, flush=True)
    table = make_table(rows)
    content = {"cpu": cpu_name(), "dataset": dataset, "rows": rows}
    write_all(workdir, {f"{name}.json": content, f"{name}.md": table.to_markdown()})
    print(table.to_text())
