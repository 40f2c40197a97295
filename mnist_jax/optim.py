"""Optimizers and learning-rate schedules by name, from optax."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mnist_jax.soap import scale_by_soap

_WARM_UP = 0.3  # share of a one-cycle run in which the rate rises
_SHORT_WARM_UP = 0.05  # of a cosine with warm-up
_MOMENTUM = 0.9


def _warmup_cosine(rate: float, num_steps: int) -> optax.Schedule:
    cosine = optax.cosine_decay_schedule(rate, num_steps)
    rising = max(1, round(_SHORT_WARM_UP * num_steps))
    return lambda step: jnp.minimum((step + 1) / rising, 1) * cosine(step)


# (rate, steps of the run) -> schedule. 'cosine' falls to 0 (Loshchilov and Hutter,
# 2017), 'warmup_cosine' rises over the first twentieth (Goyal et al., 2017), 'onecycle'
# rises from a 25th and falls to nearly 0 (Smith and Topin, 2018).
# Each is proportional to its rate, which vectorized runs rely on.
SCHEDULES: dict[str, Callable[[float, int], optax.Schedule]] = {
    "constant": lambda rate, num_steps: optax.constant_schedule(rate),
    "cosine": optax.cosine_decay_schedule,
    "warmup_cosine": _warmup_cosine,
    "onecycle": lambda rate, num_steps: optax.cosine_onecycle_schedule(
        num_steps, rate, pct_start=_WARM_UP
    ),
}


def _decoupled(
    rule: optax.GradientTransformation, schedule: optax.Schedule, decay: Any
) -> optax.GradientTransformation:
    """The rule with a weight decay that it does not scale."""
    return optax.chain(
        rule,
        optax.add_decayed_weights(decay, _is_kernel),
        optax.scale_by_learning_rate(schedule),
    )


# (schedule, weight decay) -> update rule. AdamW decouples the decay from the adaptive
# scale (Loshchilov and Hutter, 2019), and so does SOAP; to the others it comes as the
# gradient of the L2 penalty, before their own rule.
OPTIMIZERS: dict[str, Callable[[optax.Schedule, Any], optax.GradientTransformation]] = {
    "adam": lambda schedule, decay: optax.chain(
        scale_by_adam(), optax.scale_by_learning_rate(schedule)
    ),
    "adamw": lambda schedule, decay: _decoupled(scale_by_adam(), schedule, decay),
    "rmsprop": lambda schedule, decay: optax.rmsprop(schedule, decay=0.9, eps=1e-7),
    "sgd": lambda schedule, decay: optax.sgd(schedule, momentum=_MOMENTUM),
    "soap": lambda schedule, decay: _decoupled(scale_by_soap(), schedule, decay),
}
_DECOUPLED = ("adamw", "soap")


def make_schedule(name: str, learning_rate: float, num_steps: int) -> optax.Schedule:
    """The learning rate as a function of the step.

    Args:
      name: in `SCHEDULES`.
      learning_rate: the constant, the first or the highest rate.
      num_steps: length of the whole run.
    """
    return SCHEDULES[name](learning_rate, num_steps)


def make_optimizer(
    name: str,
    schedule: optax.Schedule,
    weight_decay: float | jax.Array = 0.0,
    clip_norm: float = 0.0,
) -> optax.GradientTransformation:
    """An update rule with gradient clipping and weight decay.

    Args:
      name: in `OPTIMIZERS`.
      schedule: the learning rate.
      weight_decay: on kernels alone, not on biases; float32 [] where it is a traced
        argument.
      clip_norm: largest global norm of the gradient; 0 for any.
    """
    parts = []
    if clip_norm > 0:
        parts.append(optax.clip_by_global_norm(clip_norm))
    if name not in _DECOUPLED and (isinstance(weight_decay, jax.Array) or weight_decay):
        parts.append(optax.add_decayed_weights(weight_decay, _is_kernel))
    return optax.chain(*parts, OPTIMIZERS[name](schedule, weight_decay))


def scale_by_adam(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
    """`optax.scale_by_adam` with one division per parameter instead of three.

    The corrections of both moments for their start at zero are numbers of the step,
    and go before the fraction: m' / (sqrt(v') + eps) for m' = m / (1 - b1^t) and
    v' = v / (1 - b2^t) is r / (1 - b1^t) m / (sqrt(v) + r eps) for r^2 = 1 - b2^t
    (Kingma and Ba, "Adam", 2015, end of section 2). Divisions are slow on CPU.
    """

    def update(grads, state, params=None):
        del params
        count = optax.safe_increment(state.count)
        mu = optax.tree.update_moment(grads, state.mu, b1, 1)
        nu = optax.tree.update_moment(grads, state.nu, b2, 2)
        root = jnp.sqrt(1 - b2**count)
        scale = root / (1 - b1**count)
        updates = jax.tree.map(
            lambda m, v: scale * m / (jnp.sqrt(v) + root * eps), mu, nu
        )
        return updates, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(optax.scale_by_adam().init, update)


def _is_kernel(params: Any) -> Any:
    return jax.tree.map(lambda p: p.ndim > 1, params)
