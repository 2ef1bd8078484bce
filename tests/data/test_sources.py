"""Packaged sets, and sources that are none."""

import numpy as np
import pytest

from hjcontrol.data import PACKAGED, DataError, load

pytestmark = pytest.mark.any_precision
SHAPES = {
    "digits": (1797, 64, 10),
    "wine": (178, 13, 3),
    "breast_cancer": (569, 30, 2),
    "iris": (150, 4, 3),
}


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged(name):
    data = load(name)
    n, d, classes = SHAPES[name]
    assert data.features.shape == (n, d)
    assert len(data.classes) == classes
    assert len(data.feature_names) == d
    assert len(data) == n
    assert np.unique(data.targets).tolist() == list(range(classes))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("digit", "mean 'digits'"),
        ("table.txt", "ending in .csv or .npz"),
        ("absent.csv", "no such file"),
        ("folder.csv", "directory"),
        ("empty.npz", "empty"),
    ],
)
def test_unknown_source(tmp_path, monkeypatch, source, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "empty.npz").touch()
    with pytest.raises(DataError, match=words) as error:
        load(source)
    assert source in str(error.value)


def test_target_of_a_packaged_set_is_fixed():
    with pytest.raises(DataError, match="fixed"):
        load("iris", "species")
