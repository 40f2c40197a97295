"""How accurate is each model's preset, and how long does it take?

    python -m experiments.accuracy.presets --dataset=mnist --seeds=0,1,2
    python -m experiments.accuracy.presets --models=cnn --preset=fast
        --seeds=0,1,2,3,4,5,6,7,8,9

Runs `launch.py` once per model and seed, each in a process of its own, so that the
wall time is what a person waits at first: start, data, compilation (no program comes
from the cache), training, evaluation and figures. A finished run of the same settings
is not repeated. Writes <preset>-<dataset>.json, .md and .png under --workdir.

Result: the fast preset of cnn has 99.18% of the MNIST test set correct after 20 s of
wall time (ten seeds, two cores).
"""

import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from experiments.common import charts, columns, runs, study_flags
from experiments.common.machine import environment_without_cache, run_process
from experiments.common.report import write_all
from experiments.common.table import Table, column
from mnist_jax import cli, data, models
from mnist_jax.config import Config, make_config
from mnist_jax.errors import UserError
from mnist_jax.formats import counted
from mnist_jax.storage import records
from mnist_jax.storage.stored_run import check_workdir

LAUNCH = Path(__file__).resolve().parents[2] / "launch.py"
_WALL = "wall_seconds.json"

COLUMNS = (
    *columns.ACCURACY,
    columns.TRAINING,
    column("wall time", "wall_seconds", "{:.0f} s"),
)


def run(config: Config, workdir: Path) -> tuple[runs.Run, float]:
    """One finished run, and the wall time of its process in seconds."""
    seconds = read_wall_seconds(config, workdir)
    if seconds is None:
        began = time.perf_counter()
        launch(config, workdir)
        seconds = time.perf_counter() - began
        records.write_json(workdir / _WALL, {"wall_seconds": seconds})
    # Reads it; makes again what it has lost.
    [own] = runs.train_all(
        {workdir.name: config}, workdir.parent, is_last=False
    ).values()
    return own, seconds


def read_wall_seconds(config: Config, workdir: Path) -> float | None:
    """Of the run in `workdir`; None where it is not complete, or its time is lost.

    Raises:
      RecordsError: the folder holds another run, maybe another study's.
    """
    with runs.own_folder(workdir):
        if check_workdir(config, workdir) is None:
            return None
    try:
        wall = records.read_json(workdir / _WALL, ["wall_seconds"])
    except records.RecordsError:
        return None
    return wall and wall["wall_seconds"]


def launch(config: Config, workdir: Path) -> None:
    """Runs `launch.py` with a preset.

    Raises:
      UserError: it failed; why, it has said itself.
    """
    settings = {
        name: getattr(config, name)
        for name in ("model", "dataset", "preset", "seed", "data_dir", "raw_dir")
    }
    command = [
        sys.executable,
        str(LAUNCH),
        *(f"--{name}={value}" for name, value in settings.items() if value is not None),
        f"--workdir={workdir}",
        "--nocompilation_cache",
        "--overwrite",  # an unfinished run would spoil the wall time
    ]
    status = run_process(command, env=environment_without_cache()).returncode
    if status != 0:
        raise UserError(
            f"launch.py --model={config.model} --seed={config.seed} ended with status "
            f"{status}: see what it says above, and start again"
        )


def summarize(own: Sequence[tuple[runs.Run, float]]) -> dict[str, Any]:
    """`runs.summarize`, with mean seconds of the processes and of compilation."""
    finished = [run for run, _ in own]
    compilation = [run.result["compile_seconds"] for run in finished]
    return {
        **runs.summarize(finished),
        "compile_seconds": statistics.fmean(compilation),
        "wall_seconds": statistics.fmean(seconds for _, seconds in own),
    }


def make_configs(given: flags.FlagValues) -> dict[str, list[Config]]:
    """For each model the config of each seed.

    Raises:
      ConfigError: a flag is wrong.
    """
    study_flags.names("models", given.models, list(models.MODELS))
    study_flags.check_is_known(given.dataset)
    folders = study_flags.folders(given)
    return {
        model: [
            make_config(model, given.dataset, given.preset, seed=seed, **folders)
            for seed in study_flags.seeds(given.seeds)
        ]
        for model in given.models
    }


def study() -> None:
    given = flags.FLAGS
    configs = make_configs(given)
    workdir = study_flags.workdir(given) or Path("runs/presets")
    # The wall time of the first run is without it.
    data.prepare(given.dataset, given.data_dir, given.raw_dir)
    rows = []
    for model, own in configs.items():
        folder = f"{given.dataset}-{given.preset}-{model}"
        rows.append(summarize([run(c, workdir / f"{folder}-{c.seed}") for c in own]))
    table, name = Table(COLUMNS, rows), f"{given.preset}-{given.dataset}"
    title = (
        f"{given.dataset}, {given.preset} preset, {counted(len(given.seeds), 'seed')}"
    )
    files = {
        f"{name}.json": {"dataset": given.dataset, "rows": rows},
        f"{name}.md": table.to_markdown(),
        f"{name}.png": charts.results(rows, title),
    }
    write_all(workdir, files)
    print(table.to_text(), end="")


def define_flags() -> None:
    flags.DEFINE_list("models", list(models.MODELS), "models to run, with commas")
    cli.define_settings(("dataset", "preset"), dataset="mnist", preset="default")
    study_flags.define_seeds(0)
    study_flags.define_folders("runs/presets")


main = cli.make_main(study, "finished runs are kept", lambda: False)

if __name__ == "__main__":
    define_flags()
    app.run(main)
