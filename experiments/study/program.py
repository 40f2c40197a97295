"""How a study starts and ends: as `launch.py` does."""

from collections.abc import Callable, Sequence

from mnist_jax import compilation_cache, program


def main_of(
    study: Callable[[], None], go_on: str = "the same command goes on from there"
) -> Callable[[Sequence[str]], None]:
    """The `main` that absl's `app.run` takes, of a study that reads its own flags."""

    def body() -> None:
        compilation_cache.start()
        study()

    return program.main_of(body, go_on)
