"""NPZ files: plain arrays only, shapes named when wrong, nothing unpickled."""

import numpy as np
import pytest

from hjcontrol.data import DataError, load

pytestmark = pytest.mark.any_precision
X = np.arange(12.0).reshape(6, 2)
Y = np.array([0, 1, 0, 1, 2, 2])


def saved(tmp_path, **arrays):
    path = tmp_path / "arrays.npz"
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("features", "labels"), [("X", "y"), ("features", "labels"), ("inputs", "targets")]
)
def test_names_of_arrays(tmp_path, features, labels):
    data = load(saved(tmp_path, **{features: X, labels: Y}))
    np.testing.assert_array_equal(data.features, X)
    np.testing.assert_array_equal(data.targets, Y)


def test_named_target_and_other_types(tmp_path):
    kinds = np.array(["b", "a", "b", "a", "b", "a"])
    data = load(saved(tmp_path, X=X.astype(np.int8), y=Y, kind=kinds), "kind")
    assert data.classes == ("a", "b")
    assert load(saved(tmp_path, X=X, y=Y.astype(float) * 3)).classes == ("0", "3", "6")
    assert load(saved(tmp_path, X=X, y=Y > 0)).classes == ("False", "True")


def nan_at(row, column):
    bad = X.copy()
    bad[row, column] = np.nan
    return bad


BAD = {
    "three axes": ({"X": X.reshape(6, 2, 1), "y": Y}, ["(6, 2, 1)", "Reshape to (6, 2)"]),
    "one axis": ({"X": X[:, 0], "y": Y}, ["(6,)", "(samples, features)"]),
    "other length": ({"X": X, "y": Y[:5]}, ["(6,)", "(5,)"]),
    "one-hot": ({"X": X, "y": np.eye(6)}, ["(6, 6)", "argmax"]),
    "no samples": ({"X": X[:0], "y": Y[:0]}, ["no samples"]),
    "no columns": ({"X": X[:, :0], "y": Y}, ["no feature columns"]),
    "no labels": ({"X": X, "z": Y}, ["labels", "'y'", "'z' (6,)"]),
    "no features": ({"z": X, "y": Y}, ["features", "'X'"]),
    "strings": ({"X": X.astype(str), "y": Y}, ["real numbers"]),
    "complex": ({"X": X + 1j, "y": Y}, ["complex128"]),
    "NaN": ({"X": nan_at(4, 1), "y": Y}, ["1 of 12", "row 4", "'X1'"]),
    "objects": ({"X": X, "y": Y.astype(object)}, ["pickled"]),
    "continuous": ({"X": X, "y": Y + 0.5}, ["continuous", "0.5"]),
    "one class": ({"X": X, "y": 0 * Y}, ["two classes"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arrays_are_named(tmp_path, case):
    arrays, words = BAD[case]
    path = saved(tmp_path, **arrays)
    with pytest.raises(DataError) as error:
        load(path)
    for word in [str(path), *words]:
        assert word in str(error.value)


def test_files_that_are_no_archive(tmp_path):
    path = saved(tmp_path, X=X, y=Y)
    content = path.read_bytes()
    for broken in (
        content[: len(content) // 2],
        b"a,b\n1,2\n",
        content[:40] + b"\xff" * 60 + content[100:],
    ):
        path.write_bytes(broken)
        with pytest.raises(DataError, match="savez"):
            load(path)
