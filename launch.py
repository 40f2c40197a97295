"""Train, score and use classifiers of handwritten digits.

  python launch.py --model=gru
  python launch.py --mode=evaluate --workdir=runs/mnist-gru-0
  python launch.py --mode=predict --workdir=runs/mnist-gru-0 --images=a.png,b.png
  python launch.py --mode=plot --workdir=runs/mnist-gru-0

A flag of a setting whose default is not stated takes it from the model's preset.
"""

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags, logging

from mnist_jax import (
    compilation_cache,
    datasets,
    images,
    models,
    parallel,
    plots,
    predict,
    program,
    records,
    run_folder,
    tensorboard,
    train,
)
from mnist_jax import config as config_lib

_MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "evaluate", "predict", "plot"],
    "train a model; score a trained one; classify image files; draw a run's figures "
    "again",
)
_MODEL = flags.DEFINE_enum("model", "gru", list(models.MODELS), "what to train")
_PRESET = flags.DEFINE_enum(
    "preset",
    "default",
    config_lib.PRESET_NAMES,
    "where settings that are not given come from; quick has a fifth of the epochs, "
    "fast is 99% on MNIST in the least time, for cnn",
)
_DATASET = flags.DEFINE_enum(
    "dataset",
    "auto",
    datasets.NAMES,
    "auto is mnist, or, where that cannot be had, the embedded digits",
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "the run's folder (default: runs/<dataset>-<model>-<seed>)"
)
_OVERWRITE = flags.DEFINE_boolean(
    "overwrite", False, "replace the run that the workdir holds"
)
_IMAGES = flags.DEFINE_list(
    "images", None, "image files to classify, with --mode=predict"
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "folder of prepared data sets (default: TFDS_DATA_DIR, or ~/tensorflow_datasets)",
)
_RAW_DIR = flags.DEFINE_string(
    "raw_dir",
    None,
    "folder with the four IDX files of the data set, gzipped or not (default: for "
    "mnist, MNIST_RAW_DIR)",
)
_TENSORBOARD = flags.DEFINE_boolean(
    "tensorboard", False, "also write event files for TensorBoard to the workdir"
)
_COMPILATION_CACHE = flags.DEFINE_boolean(
    "compilation_cache",
    True,
    "keep compiled programs in ~/.cache/mnist_jax for the next start",
)
_PROCESSES = [
    flags.DEFINE_string(
        "coordinator_address",
        None,
        "host:port of process 0, to train one run by several processes; auto on SLURM, "
        "Open MPI, Kubernetes and TPU pods, which say all three of these themselves",
    ),
    flags.DEFINE_integer("num_processes", None, "how many processes there are"),
    flags.DEFINE_integer("process_id", None, "which of them this is, from 0"),
]

# One flag per setting of config.Config; None stands for "not given".
_SETTINGS = [
    flags.DEFINE_integer("seed", None, "seed of all that is random (default: 0)"),
    flags.DEFINE_integer("epochs", None, "passes over the training images"),
    flags.DEFINE_integer("batch_size", None, "images per step, over all devices"),
    flags.DEFINE_enum("optimizer", None, config_lib.OPTIMIZERS, "update rule"),
    flags.DEFINE_float("learning_rate", None, "highest rate of the schedule"),
    flags.DEFINE_enum("schedule", None, config_lib.SCHEDULES, "rate over the run"),
    flags.DEFINE_float(
        "weight_decay", None, "decay of kernels, also of adamw (default: 0)"
    ),
    flags.DEFINE_float("clip_norm", None, "largest norm of the gradient, 0 for any"),
    flags.DEFINE_float(
        "label_smoothing",
        None,
        "share of a target spread over all classes (default: 0)",
    ),
    flags.DEFINE_float("dropout", None, "share of units dropped in training"),
    flags.DEFINE_enum(
        "augment", None, config_lib.AUGMENTATIONS, "random changes to training images"
    ),
    flags.DEFINE_float(
        "validation_fraction", None, "share of training images held out (default: 0.1)"
    ),
    flags.DEFINE_list("hidden_sizes", None, "units of mlp's hidden layers: 512,256"),
    flags.DEFINE_integer("units", None, "hidden units of rnn, lstm and gru"),
    flags.DEFINE_integer("layers", None, "recurrent layers of rnn, lstm and gru"),
    flags.DEFINE_boolean("bidirectional", None, "also read the sequence from its end"),
    flags.DEFINE_enum(
        "sequence", None, config_lib.SEQUENCES, "how an image is read as time steps"
    ),
    flags.DEFINE_integer(
        "num_devices", None, "devices to use (default: all that the batch can use)"
    ),
    flags.DEFINE_integer(
        "checkpoint_every", None, "chunks of about a second between saves (default: 30)"
    ),
]


def train_mode() -> None:
    if _IMAGES.value:
        raise config_lib.ConfigError(
            "--images has no effect without --mode=predict: give that, or leave it out"
        )
    settings = {flag.name: flag.value for flag in _SETTINGS}
    make = functools.partial(
        config_lib.make_config, _MODEL.value, preset=_PRESET.value, **settings
    )
    # Wrong settings are told before data is fetched.
    models.build_model(make(dataset=_DATASET.value))
    named = _named_folder()
    if _TENSORBOARD.value:
        tensorboard.check()
    parallel.start(settings["num_devices"] or 0, *[p.value for p in _PROCESSES])
    with parallel.lost_is_told(), parallel.together(train.USER_ERRORS):
        dataset = datasets.prepare(_DATASET.value, _DATA_DIR.value, _RAW_DIR.value)
        # In the record, where the data are does not depend on where one stands.
        folders = {
            flag.name: config_lib.absolute_folder(flag.value)
            for flag in (_DATA_DIR, _RAW_DIR)
        }
        config = make(dataset=dataset, **folders)
    name = f"{config.dataset}-{config.model}-{config.seed}"
    workdir = named or Path("runs") / name
    write = tensorboard.EventFiles(workdir).write if _TENSORBOARD.value else None
    starts = []

    def on_epochs(epochs):
        starts.append(len(epochs))
        if write:
            write(epochs)

    result = train.train_and_evaluate(config, workdir, _OVERWRITE.value, on_epochs)
    with parallel.lost_is_told(), parallel.together(train.USER_ERRORS):
        if parallel.is_first():
            if write:
                write(records.read_metrics(workdir))
            plots.draw_all(workdir)
            tell(result, workdir, was_complete=not starts)


def tell(result: Mapping[str, Any], workdir: Path, was_complete: bool) -> None:
    if was_complete:
        print(f"{workdir} was complete before; --overwrite trains it again")
    print(
        f"test accuracy {result['test_accuracy']:.2%}, loss {result['test_loss']:.4f} "
        f"on the {result['num_test_images']:,} test images of {result['dataset']}\n"
        f"trained {result['epochs']} epochs in {result['train_seconds']:.1f} s, "
        f"compiled in {result['compile_seconds']:.1f} s\n"
        f"records in {workdir}, figures in {workdir / records.FIGURES}"
    )


def evaluate_mode() -> None:
    parallel.start()
    scores = predict.evaluate(_workdir(), _DATA_DIR.value, _RAW_DIR.value)
    for part in ("validation", "test"):
        if part in scores:
            print(
                "{part} accuracy {accuracy:.2%}, loss {loss:.4f} on {num_images:,} "
                "images of {dataset}".format(
                    part=part, dataset=scores["dataset"], **scores[part]
                )
            )


def predict_mode() -> None:
    workdir, paths = _workdir(), _IMAGES.value
    if not paths:
        raise config_lib.ConfigError(
            "--mode=predict needs --images: give files, as in --images=a.png,b.png"
        )
    pictures = np.stack([images.read_image(path) for path in paths])
    parallel.start()
    probabilities = predict.predict(workdir, pictures)
    config = predict.load_config(workdir)
    class_names = datasets.class_names(config.dataset)
    for path, row in zip(paths, probabilities, strict=True):
        shares = "  ".join(
            f"{name} {share:.3f}" for name, share in zip(class_names, row, strict=True)
        )
        print(f"{path}: {class_names[row.argmax()]} ({row.max():.1%})  [{shares}]")
    figure = plots.draw_image_predictions(
        workdir / records.FIGURES / "images.png",
        [os.fsencode(Path(path).name).decode(errors="replace") for path in paths],
        pictures,
        probabilities,
        class_names,
        f"{config.model} trained on {config.dataset}",
    )
    print(f"figure in {figure}")


def plot_mode() -> None:
    for path in plots.draw_all(_workdir()):
        print(path)


def _workdir() -> Path:
    """The folder of the run to use, which settings are taken from too."""
    others = [_MODEL, _PRESET, _DATASET, _OVERWRITE, _TENSORBOARD]
    others += _PROCESSES + _SETTINGS
    if _MODE.value != "predict":
        others.append(_IMAGES)
    for flag in others:
        if flag.present:
            raise config_lib.ConfigError(
                f"--{flag.name} has no effect with --mode={_MODE.value}, which takes "
                "the run's own settings: leave it out"
            )
    if _WORKDIR.value is None:
        raise config_lib.ConfigError(
            f"--mode={_MODE.value} needs --workdir: give the folder of a trained run"
        )
    return _named_folder()


def _named_folder() -> Path | None:
    return None if _WORKDIR.value is None else run_folder.parse(_WORKDIR.value)


def run() -> None:
    if flags.FLAGS["verbosity"].present:
        logging.set_verbosity(flags.FLAGS.verbosity)
    if _COMPILATION_CACHE.value:
        compilation_cache.start()
    modes = {
        "train": train_mode,
        "evaluate": evaluate_mode,
        "predict": predict_mode,
        "plot": plot_mode,
    }
    modes[_MODE.value]()


main = program.main_of(
    run,
    "the same command, without --overwrite, goes on from there",
    (*train.USER_ERRORS, images.ImageError),
)

if __name__ == "__main__":
    app.run(main)
