"""The data sets that scikit-learn ships: nothing is downloaded."""

from hjcontrol._ground.third_party import needs
from hjcontrol.data.dataset import DataSet, dataset

PACKAGED = ("digits", "wine", "breast_cancer", "iris")


def read_packaged(name: str) -> DataSet:
    """One of `PACKAGED`."""
    needs("A packaged data set", "sklearn")
    import sklearn.datasets

    bunch = getattr(sklearn.datasets, f"load_{name}")()
    names = [str(c) for c in bunch.target_names]
    data = dataset(name, bunch.data, bunch.target.tolist(), [str(f) for f in bunch.feature_names])
    return DataSet(data.features, data.labels, tuple(names), data.feature_names, name)
