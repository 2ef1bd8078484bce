"""Small real data sets, from installed packages and from the user's files; splits by key.

load(name or path) -> DataSet          split(dataset, train_size, key=) -> train and test
"""

from hjcontrol.data.dataset import DataError, DataSet
from hjcontrol.data.loading import load, npz_arrays
from hjcontrol.data.packaged import PACKAGED
from hjcontrol.data.regression import load_regression, split_regression
from hjcontrol.data.splitting import Split, split, subset

__all__ = [
    "PACKAGED",
    "DataError",
    "DataSet",
    "Split",
    "load",
    "load_regression",
    "npz_arrays",
    "split",
    "split_regression",
    "subset",
]
