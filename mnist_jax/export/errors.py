"""What an export ends with where it cannot be made."""

from mnist_jax.errors import UserError


class ExportError(UserError):
    """A file that cannot be made, or does not give the run's own logits."""
