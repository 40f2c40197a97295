"""The modes of `launch.py`, and the flags that each takes."""

from collections.abc import Sequence

from mnist_jax.settings import ConfigError

# The flags that a mode takes, beside those that any program takes.
TAKEN = {
    "evaluate": ("workdir", "data_dir", "raw_dir"),
    "predict": ("workdir", "images"),
    "plot": ("workdir",),
    "export": ("workdir",),
}
MODES = ("train", *TAKEN)


def check_flags(mode: str, given: Sequence[str]) -> None:
    """Refuses flags that have no effect, and asks for those that are missing.

    Args:
      mode: in `MODES`.
      given: names of the flags on the command line that not every program has.
    """
    if mode == "train":
        if "images" in given:
            raise ConfigError(
                "--images has no effect without --mode=predict: give that, or leave it "
                "out"
            )
        return
    for name in given:
        if name not in TAKEN[mode]:
            raise ConfigError(
                f"--{name} has no effect with --mode={mode}, which takes the run's own "
                "settings: leave it out"
            )
    if "workdir" not in given:
        raise ConfigError(
            f"--mode={mode} needs --workdir: give the folder of a trained run"
        )
