"""Adam in the eigenbasis of the gradient's second moments, for small models."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from mnist_jax.settings import ConfigError

_MOST_PARAMS = 2048  # a basis is a matrix of as many rows and columns
_PRECONDITION_FREQUENCY = 50  # steps from one basis to the next


class SoapState(NamedTuple):
    """Of a model with n parameters; all but `count` are float32."""

    count: jax.Array  # int32 [], steps done
    mu: jax.Array  # [n], mean gradient
    nu: jax.Array  # [n], mean square of the gradient along each basis vector
    moments: jax.Array  # [n, n], mean of the gradient's outer product with itself
    basis: jax.Array  # [n, n], its columns are eigenvectors of `moments`


def scale_by_soap(
    b1: float = 0.9, b2: float = 0.99, eps: float = 1e-8
) -> optax.GradientTransformation:
    """SOAP (Vyas et al., 2024) with one basis for all parameters of a model.

    The paper has two bases for each matrix of parameters, so that it works for large
    ones; one for all is affordable for a few hundred, and gains more: see
    docs/selection.md. Every 50 steps it is computed anew. `nu` stays, as in the paper:
    eigenvectors keep their places, which are in ascending order of the eigenvalues.
    Where there were no gradients any direction is an eigenvector, and rounding decides:
    runs on other numbers of devices agree in accuracy, not in each parameter.

    Args:
      b1, b2: of the moving averages of the gradient, and of its squares and products.
      eps: is added to the root of `nu`.

    Raises:
      ConfigError: by `init`; the model has more than 2,048 parameters.
    """

    def init(params):
        size = sum(leaf.size for leaf in jax.tree.leaves(params))
        if size > _MOST_PARAMS:
            raise ConfigError(
                f"--optimizer=soap: the model has {size:,} parameters, and at most "
                f"{_MOST_PARAMS:,} are expected: give another optimizer, such as adamw"
            )
        _give_lapack_one_thread()
        zeros, square = jnp.zeros(size), jnp.zeros((size, size))
        return SoapState(jnp.int32(0), zeros, zeros, square, jnp.eye(size))

    def update(grads, state, params=None):
        del params
        grad, unravel = ravel_pytree(grads)
        count = optax.safe_increment(state.count)
        mu = b1 * state.mu + (1 - b1) * grad
        moments = b2 * state.moments + (1 - b2) * jnp.outer(grad, grad)
        basis = jax.lax.cond(
            count % _PRECONDITION_FREQUENCY == 0,
            lambda: jnp.linalg.eigh(moments).eigenvectors,
            lambda: state.basis,
        )
        nu = b2 * state.nu + (1 - b2) * jnp.square(grad @ basis)
        direction = (mu @ basis) / (1 - b1**count)
        update = basis @ (direction / (jnp.sqrt(nu / (1 - b2**count)) + eps))
        return unravel(update), SoapState(count, mu, nu, moments, basis)

    return optax.GradientTransformation(init, update)


def _give_lapack_one_thread() -> None:
    """Its threads wait for each other where other programs use the cores, and their
    number would decide the last bits of the eigenvectors."""
    import scipy.linalg  # noqa: F401  whose LAPACK jaxlib loads at its first use
    import threadpoolctl

    threadpoolctl.threadpool_limits(1, user_api="blas")
