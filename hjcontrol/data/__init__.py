"""Small real data sets, from installed packages and from the user's files; splits by key.

load(name or path) -> DataSet          split(dataset, train_size, key=) -> train and test
read_encoder(folder) -> Pretrained     its tensors, settings and tokeniser
"""

from hjcontrol.data.dataset import DataError, DataSet
from hjcontrol.data.loading import load, npz_arrays
from hjcontrol.data.packaged import PACKAGED
from hjcontrol.data.pretrained import Pretrained, Tokens, read_encoder
from hjcontrol.data.regression import load_regression, split_regression
from hjcontrol.data.splitting import Split, split, subset

__all__ = [
    "PACKAGED",
    "DataError",
    "DataSet",
    "Pretrained",
    "Split",
    "Tokens",
    "load",
    "load_regression",
    "npz_arrays",
    "read_encoder",
    "split",
    "split_regression",
    "subset",
]
