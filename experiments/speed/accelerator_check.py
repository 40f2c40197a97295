"""Is everything right on this accelerator, and how fast is it?

    python -m experiments.speed.accelerator_check --raw_dir=path/to/mnist

For a machine with one GPU or TPU. MNIST is read from its four IDX files, without
tensorflow-datasets. Against the CPU of the same machine it checks each operation of
`mnist_jax.ops` with its gradients, in float32 and bfloat16, and the losses of ten steps
of each model's preset in float32; and that a run repeats, and goes on from a state,
with the same bits (on GPUs with XLA_FLAGS=--xla_gpu_deterministic_ops=true). Then it
times epochs of each model at three batch sizes in both precisions, beside PyTorch in
float32 where it is installed with CUDA, and the fast preset of cnn with the test
accuracy that it reaches. What --seconds leave no time for is left out, and said.

Writes check.json, check.md and report.html under --workdir, at most 8 minutes after its
start; ends with 1 if something was not right.
"""

import os
import sys
from pathlib import Path
from typing import Any

import jax
from absl import app, flags

from experiments.common import study_flags
from experiments.common.report import Page, write_all
from experiments.common.table import Table, column
from experiments.speed.accelerator_parts import ops_check, training_check
from experiments.speed.frameworks import families
from mnist_jax import cli, models
from mnist_jax.config import make_config
from mnist_jax.data import idx
from mnist_jax.data.sources import DATASETS
from mnist_jax.errors import UserError
from mnist_jax.formats import counted
from mnist_jax.parallel import devices as devices_lib
from mnist_jax.settings import ConfigError

OPS = (
    column("operation", "name"),
    column("result", "value_error", "{:.1e}"),
    column("gradients", "gradient_error", "{:.1e}"),
    column("limit", "limit", "{:.0e}"),
    column("right", "is_right"),
)
MODELS = (
    column("model", "model"),
    column("first loss", "first_loss", "{:.4f}"),
    column("off the CPU after ten steps", "loss_difference", "{:.1e}"),
    column("repeats", "repeats"),
    column("goes on", "resumes"),
    column("right", "is_right"),
)
SPEEDS = (
    column("model", "model"),
    column("batch", "batch_size", "{:,}"),
    column("precision", "precision"),
    column("compiled in, s", "compile_seconds", "{:.1f}"),
    column("s per epoch", "seconds", "{:.3f}"),
    column("images/s", "images_per_second", "{:,.0f}"),
    column("PyTorch, s per epoch", "torch_seconds", "{:.3f}"),
)


class CheckError(UserError):
    """Something is not right on this device."""


def load(dataset: str, raw_dir: str | None) -> dict[str, Any]:
    """The arrays of a data set by the names of `data.Dataset`.

    Raises:
      ConfigError: no files are named.
      DatasetError: they are missing or damaged.
    """
    source = DATASETS[dataset]
    if source.make_arrays:
        return source.make_arrays()[0]
    raw_dir = raw_dir or os.environ.get("MNIST_RAW_DIR")
    if not raw_dir:
        raise ConfigError(
            "--raw_dir is not given: expected the folder of MNIST's four IDX files, or "
            "--dataset=digits for scikit-learn's digits"
        )
    return idx.read(idx.require(Path(raw_dir)), source)


def check_ops(device: jax.Device, cpu: jax.Device) -> list[dict[str, Any]]:
    """Rows of `OPS`."""
    rows = []
    for name, case in ops_check.make_cases().items():
        rows.append({"name": name, **ops_check.compare(case, device, cpu)})
        say(OPS, rows)
    return rows


def say(columns: Any, rows: list[dict[str, Any]]) -> None:
    print("  ".join(Table(columns, rows).cells()[-1]), file=sys.stderr, flush=True)


def define_flags() -> None:
    flags.DEFINE_enum("dataset", "mnist", ["mnist", "digits"], "images to train on")
    flags.DEFINE_string("raw_dir", None, "folder of the four IDX files")
    flags.DEFINE_list("models", list(models.MODELS), "models to check and to time")
    flags.DEFINE_list("batch_sizes", ["1024", "128", "8192"], "to time with")
    flags.DEFINE_float("seconds", 420.0, "after which nothing new is timed", 0.0)
    flags.DEFINE_string("workdir", "runs/accelerator", "where to write")


def study() -> None:
    given = flags.FLAGS
    names = study_flags.names("models", given.models, list(models.MODELS))
    for text in given.batch_sizes or [""]:
        if not text.isdecimal() or int(text) < 1:
            raise ConfigError(f"--batch_sizes={text}: expected numbers of 1 or more")
    workdir = study_flags.workdir(given)
    arrays = load(given.dataset, given.raw_dir)
    has_time = training_check.within(given.seconds)
    devices_lib.start()
    try:
        cpu = jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        raise ConfigError(
            f"JAX_PLATFORMS={jax.config.jax_platforms}: expected the CPU, too, to "
            "compare with: leave JAX_PLATFORMS unset, or add ,cpu"
        ) from error
    device = jax.devices()[0]
    train, test = (
        (arrays[f"{part}_images"], arrays[f"{part}_labels"])
        for part in ("train", "test")
    )
    ops = check_ops(device, cpu)
    trained: list[dict[str, Any]] = []
    for name in names:
        own = training_check.check_model(name, given.dataset, train, device, cpu)
        trained.append(own)
        say(MODELS, trained)
    fast = None
    if given.dataset == "mnist":
        config = make_config("cnn", "mnist", preset="fast")
        fast = training_check.train_fast(config, train, test, device)
    speeds, left_out = measure_speeds(names, given, train, device, has_time)

    wrong = [x["name"] for x in ops if not x["is_right"]]
    wrong += [x["model"] for x in trained if not x["is_right"]]
    title = f"{device.device_kind} ({device.platform}), jax {jax.__version__}"
    tables = [Table(OPS, ops), Table(MODELS, trained), Table(SPEEDS, speeds)]
    lines = [f"# {title}\n", *(table.to_markdown() for table in tables)]
    if fast:
        lines.append(
            f"The fast preset of cnn: {fast['test_accuracy']:.2%} after "
            f"{fast['seconds']:.2f} s of training.\n"
        )
    if left_out:
        lines.append(f"Not timed, for want of time or images: {', '.join(left_out)}.\n")
    page = Page(title)
    for table in tables:
        page.table(table)
    content = {"device": title, "ops": ops, "models": trained, "fast": fast}
    content |= {"speeds": speeds, "left_out": left_out}
    text = "\n".join(lines)
    files = {"check.json": content, "check.md": text, "report.html": page}
    write_all(workdir, files)
    print(text)
    if wrong:
        raise CheckError(
            f"{counted(len(wrong), 'check')} failed: {', '.join(wrong)}; see "
            f"{workdir / 'check.md'}"
        )


def measure_speeds(
    names: list[str], given: Any, train: Any, device: jax.Device, has_time: Any
) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of `SPEEDS`, and what there was no time or were too few images for."""
    rows: list[dict[str, Any]] = []
    left_out = []
    for batch_size in map(int, given.batch_sizes):
        for precision in ("float32", "bfloat16"):
            for name in names:
                if precision not in models.precisions(name):
                    continue
                if batch_size > len(train[1]) or not has_time():
                    left_out.append(f"{name} {batch_size} {precision}")
                    continue
                row = training_check.epoch_seconds(
                    name, batch_size, precision, given.dataset, train, device
                )
                has_twin = name in families.BATCH_SIZES and precision == "float32"
                row["torch_seconds"] = (
                    training_check.torch_epoch_seconds(name, batch_size, train)
                    if has_twin
                    else None
                )
                rows.append(row)
                say(SPEEDS, rows)
    return rows, left_out


main = cli.make_main(study, "nothing was written")

if __name__ == "__main__":
    define_flags()
    app.run(main)
