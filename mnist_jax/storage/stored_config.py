"""What config.json holds: every setting of a run, and the facts that identify it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from mnist_jax.settings import is_whole

_LARGEST_SIDE = 2**16


class Facts(NamedTuple):
    """What is known of a run beside its settings; what earlier versions did not write
    is None.

    Attributes:
      class_names: K, that the model tells apart.
      image_shape: height, width and channels of an image.
      init_from_sha256: of the params that --init_from gave, `digests.of_arrays`.
      new_params: names of those that it could not give.
      teacher_sha256: of the params of the runs that --teacher gave.
    """

    class_names: tuple[str, ...] | None = None
    image_shape: tuple[int, int, int] | None = None
    init_from_sha256: str | None = None
    new_params: tuple[str, ...] | None = None
    teacher_sha256: str | None = None


NO_FACTS = Facts()


class StoredConfig(NamedTuple):
    """What config.json holds."""

    settings: dict[str, Any]
    data_sha256: str | None  # of the arrays that the run trains on; None in schema 1
    facts: Facts = NO_FACTS


def to_json(stored: StoredConfig) -> dict[str, Any]:
    """The inverse of `from_json`."""
    facts = {k: x for k, x in stored.facts._asdict().items() if x is not None}
    return {**stored.settings, "data_sha256": stored.data_sha256, **facts}


def from_json(content: Mapping[str, Any]) -> StoredConfig:
    """Of what `check` has passed."""
    settings = dict(content)
    del settings["schema"]
    data_sha256 = settings.pop("data_sha256", None)
    facts = {name: settings.pop(name, None) for name in Facts._fields}
    facts = {k: tuple(x) if isinstance(x, list) else x for k, x in facts.items()}
    return StoredConfig(settings, data_sha256, Facts(**facts))


def check(content: Mapping[str, Any]) -> None:
    """Raises ValueError, whose message names the field, for facts that cannot be."""
    for name in ("data_sha256", "init_from_sha256", "teacher_sha256"):
        if not isinstance(content.get(name), str | None):
            raise ValueError(f"{name} is {content[name]!r}, expected a text")
    for name in ("class_names", "new_params"):
        texts = content.get(name)
        if texts is not None and not (
            isinstance(texts, list) and all(isinstance(x, str) for x in texts)
        ):
            raise ValueError(f"{name} is no list of texts")
    shape = content.get("image_shape")
    if shape is not None and not (
        isinstance(shape, list)
        and len(shape) == 3
        and all(is_whole(x) and 0 < x < _LARGEST_SIDE for x in shape)
    ):
        raise ValueError(f"image_shape is {shape!r}, expected three whole numbers")
