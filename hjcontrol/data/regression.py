"""Old names of `load` and `split` for real targets, for one release."""

import warnings
from pathlib import Path

from jaxtyping import Array, Key

from hjcontrol.data.dataset import DataSet
from hjcontrol.data.loading import load
from hjcontrol.data.splitting import split


def load_regression(source: str | Path, target: str | None = None) -> DataSet:
    """Old name of `load(source, target, regression=True)`."""
    _warn("load_regression(source)", "load(source, regression=True)")
    return load(source, target, regression=True)


def split_regression(
    data: DataSet, train_size: float | int, *, key: Key[Array, ""]
) -> tuple[DataSet, DataSet]:
    """Old name of `split`, which takes real targets too."""
    _warn("split_regression", "split")
    parts = split(data, train_size, key=key)
    return parts.train, parts.test


def _warn(old: str, new: str) -> None:
    warnings.warn(
        f"hjcontrol.data.{old} is now hjcontrol.data.{new}; the old name goes with the next release.",
        DeprecationWarning,
        stacklevel=3,
    )
