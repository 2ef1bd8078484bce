"""Weights as an NPZ file: one array a leaf, named by its place; no pickles."""

import io
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hjcontrol._ground.files import write_atomically


def write_weights(path: Path, weights: Any) -> Path:
    """Write the leaves of `weights`, named as `run0.W`: run, then the path within it."""
    leaves = jax.tree_util.tree_leaves_with_path(weights)
    named = {f"run{place[0].idx}{jax.tree_util.keystr(place[1:])}": a for place, a in leaves}
    buffer = io.BytesIO()
    np.savez(buffer, **{name: np.asarray(a) for name, a in named.items()})
    return write_atomically(path, buffer.getvalue())
