"""Small real data sets, from installed packages and from the user's files; splits by key.

load(name or path, regression=) -> DataSet      split(dataset, train_size, key=) -> train and test
read_encoder(folder) -> Pretrained     its tensors, settings and tokeniser
"""

from typing import TYPE_CHECKING

from hjcontrol._ground.lazy import lazily
from hjcontrol.data.dataset import DataError, DataSet
from hjcontrol.data.loading import load
from hjcontrol.data.packaged import PACKAGED
from hjcontrol.data.pretrained import Pretrained, Tokens, read_encoder
from hjcontrol.data.splitting import Split, split, subset

__all__ = [
    "PACKAGED",
    "DataError",
    "DataSet",
    "Pretrained",
    "Split",
    "Tokens",
    "load",
    "read_encoder",
    "split",
    "subset",
]

if not TYPE_CHECKING:  # old names, for one release; a type checker reports them
    _RENAMED = {"npz_arrays": ".loading:npz_arrays"}
    from hjcontrol.data.regression import load_regression, split_regression  # noqa: F401

    __getattr__, _ = lazily(__name__, renamed=_RENAMED)
