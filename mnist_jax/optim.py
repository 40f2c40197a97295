"""Optimizers and learning-rate schedules by name, from optax."""

import jax
import jax.numpy as jnp
import optax

from mnist_jax.config import Config

_WARM_UP = 0.3  # share of a one-cycle run in which the rate rises
_MOMENTUM = 0.9


def make_schedule(name: str, learning_rate: float, num_steps: int) -> optax.Schedule:
    """The learning rate as a function of the step.

    Args:
      name: 'constant'; 'cosine', down to 0 (Loshchilov and Hutter, 2017); or
        'onecycle', a cosine warm-up from a 25th followed by a cosine decay to
        nearly 0 (Smith and Topin, 2018).
      learning_rate: the constant, the first or the highest rate.
      num_steps: length of the whole run.

    Raises:
      KeyError: unknown name.
    """
    make = {
        "constant": lambda: optax.constant_schedule(learning_rate),
        "cosine": lambda: optax.cosine_decay_schedule(learning_rate, num_steps),
        "onecycle": lambda: optax.cosine_onecycle_schedule(
            num_steps, learning_rate, pct_start=_WARM_UP
        ),
    }[name]
    return make()


def make_optimizer(
    config: Config,
    schedule: optax.Schedule,
    weight_decay: jax.Array | None = None,
) -> optax.GradientTransformation:
    """The optimizer of `config`, with gradient clipping and weight decay.

    Args:
      config: says which.
      schedule: the learning rate.
      weight_decay: float32 [] instead of the number in `config`, where it is an input
        of the program.

    Decay falls on kernels alone, not on biases. AdamW decouples it from the
    adaptive scale (Loshchilov and Hutter, 2019); for the others it is the L2
    penalty's gradient, added before their own rule.

    Raises:
      KeyError: unknown name.
    """

    def is_kernel(params):
        return jax.tree.map(lambda p: p.ndim > 1, params)

    decay = config.weight_decay if weight_decay is None else weight_decay
    rule = {
        "adam": lambda: optax.chain(
            scale_by_adam(), optax.scale_by_learning_rate(schedule)
        ),
        "adamw": lambda: optax.chain(
            scale_by_adam(),
            optax.add_decayed_weights(decay, is_kernel),
            optax.scale_by_learning_rate(schedule),
        ),
        "rmsprop": lambda: optax.rmsprop(schedule, decay=0.9, eps=1e-7),
        "sgd": lambda: optax.sgd(schedule, momentum=_MOMENTUM),
    }[config.optimizer]()
    parts = []
    if config.clip_norm > 0:
        parts.append(optax.clip_by_global_norm(config.clip_norm))
    if (weight_decay is not None or decay > 0) and config.optimizer != "adamw":
        parts.append(optax.add_decayed_weights(decay, is_kernel))
    return optax.chain(*parts, rule)


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
