"""Handwritten-digit recognition in JAX: models, training and honest records."""

import os

__version__ = "0.1.0"

# On CPU XLA reports each program that it takes from the compilation cache as an error,
# for features of the processor that are none (jax-ml/jax#38445). It reads this when it
# is loaded; what goes wrong in it still arrives as an exception.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
