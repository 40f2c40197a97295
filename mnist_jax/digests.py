"""SHA-256 sums by which damage and difference are known."""

import hashlib
import json
from typing import Any

import jax
import numpy as np


def of_arrays(tree: Any) -> str:
    """Of all arrays of a tree, with their names, dtypes and shapes."""
    total = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(tree):
        leaf = np.ascontiguousarray(leaf)
        name = jax.tree_util.keystr(path)
        total.update(f"{name} {leaf.dtype} {np.shape(leaf)}\n".encode())
        total.update(leaf)
    return total.hexdigest()


def of_json(content: Any) -> str:
    """Of what JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
