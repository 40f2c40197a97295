"""Hyperparameter search: a space, its trials, successive halving, a chart."""
