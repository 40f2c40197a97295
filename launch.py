"""Train, score and use classifiers of handwritten digits.

  python launch.py --model=gru
  python launch.py --mode=evaluate --workdir=runs/mnist-gru-0
  python launch.py --mode=predict --workdir=runs/mnist-gru-0 --images=a.png,b.png
  python launch.py --mode=serve --workdir=runs/mnist-gru-0,runs/mnist-cnn-0
  python launch.py --mode=plot --workdir=runs/mnist-gru-0
  python launch.py --mode=export --workdir=runs/mnist-gru-0

A setting that is not given comes from the model's preset.
"""

import gc
import re
import sys

from mnist_jax import signals, streams

# Before what takes a second to import.
streams.open_closed()
signals.listen()
gc.disable()  # until a run trains: what is imported is no garbage

from absl import app, flags  # noqa: E402

from mnist_jax import cli, commands  # noqa: E402

_MODE = flags.DEFINE_enum(
    "mode",
    "train",
    list(commands.MODES),
    "train a model; score a trained one; classify image files; serve a page to draw "
    "on; draw a run's figures again; write a run as files for other programs",
)
# Figures are drawn without JAX, which the flags of the settings would import.
_ONLY_DRAWS = "--mode=plot" in sys.argv and all(
    re.match("--?(mode|workdir)=", argument) for argument in sys.argv[1:]
)
_SETTINGS = (
    []
    if _ONLY_DRAWS
    else cli.define_settings(model="gru", dataset="auto", preset="default")
)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "the run's folder (default: runs/<dataset>-<model>-<seed>); with --mode=serve also "
    "several, with commas",
)
_OVERWRITE = flags.DEFINE_boolean(
    "overwrite", False, "replace the run that the workdir holds"
)
_IMAGES = flags.DEFINE_multi(
    flags.ListParser(),
    flags.CsvListSerializer(","),
    "images",
    None,
    "image files to classify, with --mode=predict; folders, and patterns such as "
    "'scans/*.png', stand for the files in them",
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "CSV file for the predictions of --mode=predict: file, class, and the probability "
    "of each class",
)
_PORT = flags.DEFINE_integer(
    "port",
    8000,
    "of 127.0.0.1, for --mode=serve; 0 for any that is free",
    lower_bound=0,
    upper_bound=65535,
)
_DRAWINGS = flags.DEFINE_string(
    "drawings",
    "drawings",
    "folder where --mode=serve keeps drawings, one for each class",
)
_TENSORBOARD = flags.DEFINE_boolean(
    "tensorboard",
    False,
    "also write event files to tensorboard/ in the workdir; needs pip install -e "
    "'.[tensorboard]'",
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
    flags.DEFINE_integer("process_id", None, "index of this process, from 0"),
]


def run() -> None:
    mode, workdir = _MODE.value, _WORKDIR.value
    own = [_WORKDIR, _OVERWRITE, _IMAGES, _OUTPUT, _PORT, _DRAWINGS, _TENSORBOARD]
    own += [*_PROCESSES, *_SETTINGS]
    commands.check_flags(mode, [flag.name for flag in own if flag.present])
    if mode == "train":
        commands.train(
            cli.given_settings(_SETTINGS),
            workdir,
            _OVERWRITE.value,
            _TENSORBOARD.value,
            {flag.name: flag.value for flag in _PROCESSES},
        )
    elif mode == "evaluate":
        settings = cli.given_settings(_SETTINGS)
        names = ("data_dir", "raw_dir", "eval_views")
        commands.evaluate(workdir, *(settings[name] for name in names))
    elif mode == "predict":
        given = _IMAGES.value or []  # a list for each --images
        paths = [path for paths in given for path in paths]
        commands.predict_images(workdir, paths, _OUTPUT.value)
    elif mode == "serve":
        commands.serve(workdir, _PORT.value, _DRAWINGS.value)
    elif mode == "export":
        commands.export_run(workdir)
    else:
        commands.plot(workdir, _COMPILATION_CACHE.value)


main = cli.make_main(
    run,
    "the same command, without --overwrite, goes on from there",
    lambda: _COMPILATION_CACHE.value and _MODE.value != "plot",
)

if __name__ == "__main__":
    app.run(main)
