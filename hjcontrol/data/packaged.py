"""The data sets that scikit-learn ships: nothing is downloaded."""

import dataclasses

from hjcontrol._ground.third_party import needs
from hjcontrol.data.dataset import DataSet, classified, measured

PACKAGED = ("digits", "wine", "breast_cancer", "iris")
MEASURED = ("diabetes",)  # of real targets


def read_packaged(name: str, regression: bool = False) -> DataSet:
    """One of `PACKAGED`, or of `MEASURED`. For `regression` the numbers of the classes are targets."""
    needs("A packaged data set", "sklearn")
    import sklearn.datasets

    bunch = getattr(sklearn.datasets, f"load_{name}")()
    names = [str(f) for f in bunch.feature_names]
    if name in MEASURED:
        return measured(name, bunch.data, bunch.target.astype(float), names)
    data = classified(name, bunch.data, bunch.target.tolist(), names)
    if regression:
        return dataclasses.replace(data, targets=data.targets.astype(float), classes=None)
    return dataclasses.replace(data, classes=tuple(str(c) for c in bunch.target_names))
