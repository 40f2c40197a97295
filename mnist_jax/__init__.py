"""Handwritten-digit recognition in JAX: models, training and honest records."""

__version__ = "0.1.0"
