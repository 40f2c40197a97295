"""What `launch.py` does: one function for each mode, which prints what it found.

Each imports what it needs: figures are drawn without JAX, which is slow to import.
"""

from collections.abc import Sequence

from mnist_jax.commands.train import train
from mnist_jax.commands.use import evaluate, export_run, plot, predict_images, serve
from mnist_jax.settings import ConfigError

__all__ = [
    "MODES",
    "check_flags",
    "evaluate",
    "export_run",
    "plot",
    "predict_images",
    "serve",
    "train",
]

# The flags that a mode takes, beside those that any program takes.
_TAKEN = {
    "evaluate": ("workdir", "data_dir", "raw_dir", "eval_views"),
    "predict": ("workdir", "images", "output"),
    "serve": ("workdir", "port", "drawings"),
    "plot": ("workdir",),
    "export": ("workdir",),
}
MODES = ("train", *_TAKEN)
# Those that training does not take -> the one mode that does.
_MODE_OF = {
    name: mode
    for mode, taken in _TAKEN.items()
    for name in taken
    if name not in ("workdir", "data_dir", "raw_dir", "eval_views")
}


def check_flags(mode: str, given: Sequence[str]) -> None:
    """Refuses flags that have no effect, and asks for those that are missing.

    Args:
      mode: in `MODES`.
      given: names of the flags on the command line that not every program has.
    """
    if mode == "train":
        for name in given:
            if name in _MODE_OF:
                raise ConfigError(
                    f"--{name} has no effect without --mode={_MODE_OF[name]}: give "
                    "that, or leave it out"
                )
        return
    for name in given:
        if name not in _TAKEN[mode]:
            raise ConfigError(
                f"--{name} has no effect with --mode={mode}, which takes the run's own "
                "settings: leave it out"
            )
    if "workdir" not in given:
        raise ConfigError(
            f"--mode={mode} needs --workdir: give the folder of a trained run"
        )
