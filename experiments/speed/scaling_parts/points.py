"""What the scaling study measures: the points along its axes."""

from collections.abc import Sequence
from typing import NamedTuple

from experiments.common import study_flags
from mnist_jax.errors import UserError

RECURRENT = ("rnn", "lstm", "gru")


class ScalingError(UserError):
    """The study cannot go on."""


class Point(NamedTuple):
    """What is trained."""

    model: str
    batch_size: int = 128
    units: int | None = None  # of the hidden layer; None for a model without one
    time_steps: int | None = None  # T; None for a model that is not recurrent

    def __str__(self) -> str:
        text = f"{self.model}, batch {self.batch_size}"
        if self.units is not None:
            text += f", {self.units} units"
        if self.time_steps is not None:
            text += f", {self.time_steps} time steps"
        return text


class Axis(NamedTuple):
    """What changes along one column of the figure."""

    field: str  # of Point
    label: str
    title: str
    values: tuple[int, ...]
    models: tuple[str, ...]
    guides: tuple[int, ...]  # powers of the value that the time may grow as


DEFAULTS = {
    "linear": Point("linear"),
    "mlp": Point("mlp", units=128),
    "cnn": Point("cnn"),
    **{model: Point(model, units=128, time_steps=28) for model in RECURRENT},
}
AXES = {
    "batch": Axis(
        "batch_size",
        "images per batch",
        "Batch (128 units, 28 time steps)",
        (32, 64, 128, 256, 512, 1024, 2048, 4096),
        tuple(DEFAULTS),
        (),
    ),
    "units": Axis(
        "units",
        "units",
        "Units (batch of 128, 28 time steps)",
        (64, 128, 256, 512, 1024),
        ("mlp", *RECURRENT),
        (1, 2),
    ),
    "time_steps": Axis(
        "time_steps",
        "time steps",
        "Time steps (batch of 128, 128 units)",
        (28, 56, 112, 196, 392, 784),
        RECURRENT,
        (1,),
    ),
}


def plan(
    axis: Axis, names: Sequence[str], max_values: int | None = None
) -> list[Point]:
    """The points of one axis, all models at one value before the next value.

    Args:
      axis: one of `AXES`.
      names: models; those that the axis does not have are left out.
      max_values: how many values, the smallest first; None for all.
    """
    return [
        DEFAULTS[model]._replace(**{axis.field: value})
        for value in axis.values[:max_values]
        for model in names
        if model in axis.models
    ]


def make_plans(
    axes: Sequence[str], names: Sequence[str], max_values: int | None
) -> dict[str, list[Point]]:
    """The points of each axis, by its name; axes that none of the models has go.

    Raises:
      ConfigError: an axis or a model is unknown.
      ScalingError: nothing is left.
    """
    study_flags.names("axes", axes, list(AXES))
    study_flags.names("models", names, list(DEFAULTS))
    plans = {name: plan(AXES[name], names, max_values) for name in axes}
    plans = {name: points for name, points in plans.items() if points}
    if not plans:
        raise ScalingError(
            f"--models={','.join(names)} --axes={','.join(axes)}: no such model "
            "changes along such an axis; give others"
        )
    return plans
