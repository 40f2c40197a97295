"""Handwritten-digit recognition in JAX: models, training and honest records."""

import os
import sys

__version__ = "0.1.0"

# On CPU XLA reports each program that it takes from the compilation cache as an error,
# for features of the processor that are none (jax-ml/jax#38445). It reads this variable
# once, when it is loaded. 1 is what JAX itself sets, and leaves to child processes.
_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
if "jaxlib" not in sys.modules and os.environ.get(_LEVEL, "1") == "1":
    os.environ[_LEVEL] = "3"
# If not, `compilation_cache` stays off, so that there is nothing to report.
XLA_IS_QUIET = os.environ.get(_LEVEL) == "3"
