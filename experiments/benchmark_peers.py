"""How long does one epoch of the same model on the same images take here?

In this package, in plain Flax, in PyTorch and in Keras, on the CPU:

    python experiments/benchmark_peers.py --torch_python=path/to/python
        --keras_python=path/to/python --raw_dir=path/to/idx/files

PyTorch and Keras stay out of this package's environment: each flag names the Python of
an environment that has them, and without the flag they are left out. The models, their
batches, Adam and its rate are the same everywhere, with neither augmentation nor
dropout, in float32, each library used as its own documentation shows. Each competitor
is a process with its images in memory that has trained one epoch to warm up; they take
turns, so that a change of the machine's speed meets all of them. A turn is one epoch,
or as many as two seconds hold, of which the mean counts: after a pause the first tenths
of a second are slow. A ratio is taken within a round, and given as the median over the
rounds with the lowest and the highest. The machine's own rate of matrix products takes
its turn too.

Takes about twenty minutes on two cores, and writes benchmark.json, .md and .png under
--workdir, after each model anew.

Result: the table in the README, on 2 cores of an AMD EPYC. An epoch here takes less
time than in the fastest of the others by a factor of 13.1 (linear), 5.9 (mlp), 1.9
(cnn), 2.6 (rnn), 1.5 (lstm) and 2.8 (gru).
"""

import io
import json
import platform
import shlex
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags, logging
from machine import cpu_name
from peers import families, processes, protocol
from peers.processes import BenchmarkError

from mnist_jax import datasets, parallel, records

# Each lane's name for people, and the module that is its worker.
NAMES = {
    "ours": "mnist_jax",
    "flax": "Flax",
    "torch": "PyTorch",
    "torch_loader": "PyTorch DataLoader",
    "keras": "Keras",
}
WORKERS = {
    "ours": "ours",
    "flax": "flax_linen",
    "torch": "pytorch",
    "torch_loader": "pytorch",
    "keras": "keras_fit",
    "matmul": "matmul",
}
PEERS = ("torch", "torch_loader", "keras")
_PAUSE = 0.5  # seconds; a library's idle threads spin for some time before they sleep

_TORCH = flags.DEFINE_string("torch_python", None, "Python that has PyTorch")
_KERAS = flags.DEFINE_string("keras_python", None, "Python that has Keras")
_MODELS = flags.DEFINE_list("models", list(families.BATCH_SIZES), "models to train")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "turns of each", lower_bound=1)
_TURN_SECONDS = flags.DEFINE_float(
    "turn_seconds", 2.0, "a turn is epochs until so long has passed", lower_bound=0.0
)
_IMAGES = flags.DEFINE_integer("images", 60000, "images in an epoch", lower_bound=1)
_DATASET = flags.DEFINE_enum(
    "dataset", "mnist", ["mnist", "synthetic"], "synthetic is noise and needs no files"
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "as in launch.py")
_RAW_DIR = flags.DEFINE_string("raw_dir", None, "as in launch.py")
_THREADS = flags.DEFINE_integer(
    "threads", None, "per library (default: the cores of this process)", lower_bound=1
)
_WORKDIR = flags.DEFINE_string("workdir", "runs/benchmark", "where to write")


def load_data() -> tuple[np.ndarray, np.ndarray]:
    """uint8 [N, 28, 28, 1] and int32 [N]."""
    num_images = _IMAGES.value
    if _DATASET.value == "synthetic":
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (num_images, 28, 28, 1), np.uint8)
        return images, rng.integers(0, 10, num_images, np.int32)
    data = datasets.load(_DATASET.value, _DATA_DIR.value, _RAW_DIR.value)
    if num_images > len(data.train_images):
        raise BenchmarkError(
            f"--images={num_images}: {data.name} has {len(data.train_images)}; give "
            "that many or fewer"
        )
    return data.train_images[:num_images], data.train_labels[:num_images]


def check_flags() -> None:
    for model in _MODELS.value:
        if model not in families.BATCH_SIZES:
            known = ", ".join(families.BATCH_SIZES)
            raise BenchmarkError(f"--models={model}: expected some of {known}")
        if _IMAGES.value < families.BATCH_SIZES[model]:
            raise BenchmarkError(
                f"--images={_IMAGES.value}: a batch of {model} has "
                f"{families.BATCH_SIZES[model]}; give that many or more"
            )


def choose_lanes(env: dict[str, str]) -> dict[str, str]:
    """The interpreter of each lane, in the order of their turns."""
    lanes = {"ours": sys.executable, "flax": sys.executable}
    if _TORCH.value:
        processes.check_interpreter("torch_python", _TORCH.value, "torch", env)
        lanes |= {"torch": _TORCH.value, "torch_loader": _TORCH.value}
    if _KERAS.value:
        processes.check_interpreter(
            "keras_python", _KERAS.value, "keras, tensorflow", env
        )
        lanes |= {"keras": _KERAS.value}
    return lanes | {"matmul": sys.executable}


def measure(
    model: str,
    lanes: Mapping[str, str],
    env: dict[str, str],
    threads: int,
    folder: Path,
) -> tuple[dict[str, dict], list[dict[str, dict]]]:
    """Warms all lanes up, then lets them take turns.

    Args:
      model: what to train.
      lanes: interpreter by lane.
      env: of the workers.
      threads: for each library.
      folder: holds data.npz, and takes what the workers print.

    Returns:
      What each lane said of itself, and of each round what each lane measured.
    """
    workers, ready, rounds = {}, {}, []
    try:
        for lane, python in lanes.items():
            arguments = {
                "lane": lane,
                "model": model,
                "batch_size": families.BATCH_SIZES[model],
                "threads": threads,
                "data": folder / "data.npz",
            }
            command = [python, "-m", f"peers.{WORKERS[lane]}"]
            command += [f"--{name}={value}" for name, value in arguments.items()]
            workers[lane] = processes.Worker(
                f"{lane} of {model}", command, env, folder / f"{model}-{lane}.log"
            )
            ready[lane] = workers[lane].read()
            report(f"{model} {lane}: warm-up {ready[lane]['warm_up_seconds']:.1f} s")
        check_params(model, ready)
        for number in range(1, _ROUNDS.value + 1):
            measured = {}
            for lane, worker in workers.items():
                time.sleep(_PAUSE)
                measured[lane] = protocol.take_turn(
                    worker.run_epoch, _TURN_SECONDS.value
                )
                report(f"{model} {lane}: round {number}, {describe(measured[lane])}")
            rounds.append(measured)
    finally:
        for worker in workers.values():
            worker.close()
    return ready, rounds


def describe(measured: Mapping[str, float]) -> str:
    """One measurement in words."""
    if "gflops" in measured:
        return f"{measured['gflops']:.0f} GFLOP/s"
    return f"{measured['seconds']:.3f} s, loss {measured['loss']:.4f}"


def check_params(model: str, ready: Mapping[str, Mapping[str, Any]]) -> int:
    """The number of parameters that all lanes share.

    Raises:
      BenchmarkError: they train models of different sizes.
    """
    numbers = {
        lane: one["num_params"] - one["redundant_params"]
        for lane, one in ready.items()
        if one["num_params"] is not None
    }
    if len(set(numbers.values())) != 1:
        each = ", ".join(f"{lane} {number:,}" for lane, number in numbers.items())
        raise BenchmarkError(f"{model} is not the same model everywhere: {each}")
    return next(iter(numbers.values()))


def summarize(
    model: str,
    num_images: int,
    ready: Mapping[str, Mapping[str, Any]],
    rounds: Sequence[Mapping[str, Mapping[str, float]]],
) -> dict[str, Any]:
    """What is written about one model.

    Args:
      model: its name.
      num_images: of the data set; the incomplete batch is not trained on.
      ready, rounds: see `measure`.
    """
    batch_size = families.BATCH_SIZES[model]
    num_images -= num_images % batch_size
    flops = families.flops_per_image(model)
    lanes = [lane for lane in NAMES if lane in ready]
    peers = [lane for lane in PEERS if lane in ready]
    ours = [one["ours"]["seconds"] for one in rounds]
    rates = [one["matmul"]["gflops"] for one in rounds]

    def summarize_lane(lane):
        seconds = [one[lane]["seconds"] for one in rounds]
        median = statistics.median(seconds)
        return {
            "seconds": seconds,
            "median_seconds": median,
            "images_per_second": num_images / median,
            "times_ours": spread([x / y for x, y in zip(seconds, ours, strict=True)]),
            "warm_up_seconds": ready[lane]["warm_up_seconds"],
            "loss": [one[lane]["loss"] for one in rounds],
            "redundant_params": ready[lane]["redundant_params"],
        }

    fastest = [min((one[x]["seconds"] for x in peers), default=None) for one in rounds]
    return {
        "model": model,
        "batch_size": batch_size,
        "num_params": check_params(model, ready),
        "images_per_epoch": num_images,
        "flops_per_image": flops,
        "lanes": {lane: summarize_lane(lane) for lane in lanes},
        "times_faster_than_peers": spread(
            [x / y for x, y in zip(fastest, ours, strict=True)]
        )
        if peers
        else None,
        "matmul_gflops": rates,
        "share_of_matmul": spread(
            [
                flops * num_images / seconds / (rate * 1e9)
                for seconds, rate in zip(ours, rates, strict=True)
            ]
        ),
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": statistics.median(values),
        "lowest": min(values),
        "highest": max(values),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of `summarize` as Markdown; all have the same lanes."""
    lanes = list(rows[0]["lanes"])
    heads = ["model", "batch", "parameters", *(f"{NAMES[x]}, s" for x in lanes)]
    peers = [NAMES[x] for x in ("torch", "keras") if x in lanes]
    if peers:
        names = ("the faster of " if len(peers) > 1 else "") + " and ".join(peers)
        heads.append(f"times faster than {names} (lowest to highest round)")
    heads.append("share of the machine's matrix-product rate")
    lines = [
        f"| {' | '.join(heads)} |",
        f"| --- |{' ---: |' * (len(heads) - 1)}",
    ]
    for row in rows:
        cells = [row["model"], str(row["batch_size"]), f"{row['num_params']:,}"]
        cells += [f"{row['lanes'][x]['median_seconds']:.2f}" for x in lanes]
        faster = row["times_faster_than_peers"]
        if faster:
            low, high = faster["lowest"], faster["highest"]
            cells.append(f"{faster['median']:.2f} ({low:.2f} to {high:.2f})")
        cells.append(f"{row['share_of_matmul']['median']:.0%}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def caption(content: Mapping[str, Any]) -> str:
    """One line that says what the numbers are of."""
    rounds, threads = content["rounds"], content["threads"]
    return (
        f"One epoch of {content['images']:,} {content['dataset']} images, median of "
        f"{rounds} round{'s'[: rounds > 1]}, {threads} thread{'s'[: threads > 1]} of "
        f"{content['cpu']}"
    )


def draw(content: Mapping[str, Any]) -> bytes:
    """The benchmark's content as a PNG file: images per second of every lane."""
    # Not at the top: matplotlib is slow to import.
    from matplotlib.figure import Figure

    colours = dict(
        zip(NAMES, ("#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#009E73"), strict=True)
    )
    rows = content["models"]
    lanes = list(rows[0]["lanes"])
    width = 0.84 / len(lanes)
    figure = Figure(figsize=(10, 5), layout="constrained", facecolor="white")
    axis = figure.subplots()
    left = np.arange(len(rows)) - 0.42
    drawn, fastest, slowest = [], 0.0, np.inf
    for i, lane in enumerate(lanes):
        speeds = [row["lanes"][lane]["images_per_second"] for row in rows]
        place = left + width * (i + 0.5)
        bars = axis.bar(
            place, speeds, width * 0.92, color=colours[lane], label=NAMES[lane]
        )
        for x, speed in zip(place, speeds, strict=True):
            # Inside the bar, where no limit's line crosses it.
            text = f"{speed:,.0f} "
            axis.text(x, speed, text, ha="center", va="top", rotation=90, fontsize=8)
        drawn.append(bars)
        fastest, slowest = max(fastest, *speeds), min(slowest, *speeds)
    limits = [
        statistics.median(row["matmul_gflops"]) * 1e9 / row["flops_per_image"]
        for row in rows
    ]
    lines = axis.hlines(limits, left, left + 0.84, color="black", linewidth=1.6)
    lines.set_label("limit by the machine's matrix products")
    # Bars on a logarithmic scale have no natural foot; this leaves room for a number.
    axis.set(yscale="log", ylim=(slowest / 6, 2 * max(fastest, *limits)))
    axis.set_xticks(range(len(rows)), [row["model"] for row in rows])
    axis.tick_params(axis="x", length=0)
    axis.set_ylabel("training images per second")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    figure.legend(
        handles=[*drawn, lines], loc="outside lower center", ncols=6, frameon=False
    )
    figure.suptitle(caption(content), fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def write(workdir: Path, content: Mapping[str, Any]) -> None:
    # The figure last: it is drawn from what the others hold.
    for suffix, make in (("json", to_json), ("md", to_markdown), ("png", draw)):
        records.write_atomically(workdir / f"benchmark.{suffix}", make(content))


def to_json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def to_markdown(content: Mapping[str, Any]) -> bytes:
    text = f"{caption(content)}; seconds.\n\n{table(content['models'])}"
    return text.encode()


def report(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run() -> None:
    check_flags()
    threads = _THREADS.value or parallel.count_cores()
    env = processes.environment(threads)
    lanes = choose_lanes(env)
    images, labels = load_data()
    content = {
        "dataset": _DATASET.value,
        "images": _IMAGES.value,
        "rounds": _ROUNDS.value,
        "threads": threads,
        "cpu": cpu_name(),
        "python": platform.python_version(),
        "command": shlex.join(["python", *sys.argv]),
        "versions": {},
        "models": [],
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "data.npz", images=images, labels=labels)
        for model in _MODELS.value:
            ready, rounds = measure(model, lanes, env, threads, folder)
            content["versions"] = {x: one["versions"] for x, one in ready.items()}
            content["models"].append(summarize(model, len(images), ready, rounds))
            write(Path(_WORKDIR.value), content)
    print(table(content["models"]))


def main(argv: list[str]) -> None:
    del argv
    logging.set_verbosity(logging.WARNING)  # as in launch.py
    # As SystemExit, so that the workers are ended and the images removed.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        run()
    except (BenchmarkError, datasets.DatasetError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        report(f"stopped; what is finished is in {_WORKDIR.value}")
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    app.run(main)
