"""Do five well-known systems reach what they claim, when they are built on mnist_jax?

    python experiments/reproduce.py --dataset=mnist
    python experiments/reproduce.py --only=lstm,mlp --seeds=0,1,2,3,4

The five are in `systems/recipes.py`: a study of RNN, LSTM and GRU on rows, an LSTM with
RMSprop, an MLP with dropout, ANN against CNN, a plain ReLU ANN; each with its own
recipe, and the extensions that its authors leave for later. Every recipe trains with
each seed; tuning takes its trials on the validation part, and its best trains with each
seed like all others. Finished runs are not repeated.

Writes reproduce.json, .md, a folder of figures and report.html under --workdir. Takes
41 minutes on MNIST on two cores, and one on the digits with --seeds=0 --trials=3.

Result: the table in the README; every claim that is a number is reached.
"""

import sys
import time
from pathlib import Path
from typing import Any

from absl import app, flags
from search import space as space_lib
from search.halving import Search
from study import figures, program, runs
from study.page import Page, markdown, write_all
from study.runs import Run
from systems import findings
from systems.recipes import SYSTEMS, Recipe, System, Tuning

from mnist_jax import datasets, parallel
from mnist_jax.config import ConfigError

KEYS = [system.key for system in SYSTEMS]
_HALVING = 3

_ONLY = flags.DEFINE_list("only", KEYS, "systems to run")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "seeds to train each recipe with")
_TRIALS = flags.DEFINE_integer("trials", 12, "of each tuning", lower_bound=1)
_DATASET = flags.DEFINE_enum("dataset", "auto", datasets.NAMES, "as in launch.py")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "as in launch.py")
_RAW_DIR = flags.DEFINE_string("raw_dir", None, "as in launch.py")
_WORKDIR = flags.DEFINE_string("workdir", None, "default: runs/reproduce-<dataset>")


def check_flags() -> None:
    for key in _ONLY.value or [""]:
        if key not in KEYS:
            raise ConfigError(f"--only={key}: expected some of {', '.join(KEYS)}")
    runs.seeds(_SEEDS.value)


def tune(tuning: Tuning, dataset: str, workdir: Path) -> Recipe:
    """The recipe with the settings that validate best."""
    settings = space_lib.draw(space_lib.parse(tuning.vary), _TRIALS.value, seed=0)
    recipes = [
        tuning.recipe._replace(settings=dict(tuning.recipe.settings) | own)
        for own in settings
    ]
    configs = [r.config(dataset, 0, **runs.folders(flags.FLAGS)) for r in recipes]
    print(f"tuning: {len(configs)} trials", file=sys.stderr)
    search = Search(workdir / "search.json", configs, settings, _HALVING)
    search.run()
    search.forget_states()
    return recipes[search.ranking()[0]]


def train_system(system: System, dataset: str, workdir: Path) -> dict[str, list[Run]]:
    """The system's runs by the name of their recipe, one for each seed."""
    recipes = list(system.recipes)
    if system.tuning:
        recipes.append(tune(system.tuning, dataset, workdir / f"{system.key}-tuning"))
    by_recipe = {
        recipe.name: {
            f"{system.key}-{number}-{recipe.model}-{seed}": recipe.config(
                dataset, seed, **runs.folders(flags.FLAGS)
            )
            for seed in runs.seeds(_SEEDS.value)
        }
        for number, recipe in enumerate(recipes)
    }
    flat = {key: config for own in by_recipe.values() for key, config in own.items()}
    trained = runs.train_all(flat, workdir)
    return {name: [trained[key] for key in own] for name, own in by_recipe.items()}


def report(
    system: System, by_recipe: dict[str, list[Run]], page: Page, folder: Path
) -> list[dict[str, Any]]:
    """The system's rows of the table; adds its part to the page."""
    known = {recipe.name: recipe for recipe in system.recipes}
    if system.tuning:
        known[system.tuning.recipe.name] = system.tuning.recipe
    rows = []
    for name, own in by_recipe.items():
        row = {
            "system": system.title,
            "name": name,
            "claim": known[name].claim,
            # What is claimed is claimed of MNIST.
            "at_least": known[name].at_least
            if own[0].config.dataset == "mnist"
            else None,
            **runs.summarize(own),
        }
        least = row["at_least"]
        row["reached"] = None if least is None else row["test_accuracy"] >= least
        rows.append(row)
    page.heading(system.title)
    page.text(f"Claim: {system.claim}.")
    for finding in findings.of(system.key, by_recipe):
        page.text(finding)
    if system.tuning:
        page.text(findings.tuned(system.tuning, by_recipe[system.tuning.recipe.name]))
    page.table(HEADS, [cells(row) for row in rows])
    drawn = findings.draw(system, by_recipe)
    for name, (caption, png) in drawn.items():
        page.figure(png, caption)
        write_all(folder, {f"{system.key}-{name}.png": png})
    return rows


HEADS = (
    "system",
    "recipe",
    "claim",
    "reached",
    "test accuracy",
    "lowest",
    "parameters",
    "training",
)


def cells(row: dict[str, Any]) -> list[str]:
    return [
        row["system"],
        row["name"],
        row["claim"],
        {None: "", True: "yes", False: "no"}[row["reached"]],
        f"{row['test_accuracy']:.2%} ± {100 * row['spread']:.2f}",
        f"{min(row['test_accuracies']):.2%}",
        f"{row['num_params']:,}",
        f"{row['train_seconds']:.0f} s",
    ]


def study() -> None:
    check_flags()
    began = time.monotonic()
    parallel.start()
    dataset = datasets.prepare(_DATASET.value, _DATA_DIR.value, _RAW_DIR.value)
    workdir = Path(_WORKDIR.value or Path("runs") / f"reproduce-{dataset}")
    page = Page(f"Five systems on {dataset}")
    rows = []
    chosen = [system for system in SYSTEMS if system.key in _ONLY.value]
    for number, system in enumerate(chosen, 1):
        print(f"system {number} of {len(chosen)}: {system.title}", file=sys.stderr)
        by_recipe = train_system(system, dataset, workdir)
        rows += report(system, by_recipe, page, workdir / "figures")
    page.heading("All")
    page.table(HEADS, [cells(row) for row in rows])
    num_seeds = len(_SEEDS.value)
    png = figures.claims(rows, f"{dataset}, {num_seeds} seed{'s'[: num_seeds > 1]}")
    page.figure(png, "Test accuracy of each recipe and what is claimed of it.")
    content = {"dataset": dataset, "seeds": runs.seeds(_SEEDS.value), "rows": rows}
    text = markdown(HEADS, [cells(row) for row in rows], num_texts=4)
    files = {"reproduce.json": content, "reproduce.md": text, "report.html": page}
    write_all(workdir, files | {"figures/claims.png": png})
    minutes = (time.monotonic() - began) / 60
    print(f"{text}\n{minutes:.1f} minutes; {workdir / 'report.html'}")


if __name__ == "__main__":
    app.run(program.main_of(study))
