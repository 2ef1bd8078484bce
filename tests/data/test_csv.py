"""CSV files: what is read back is what was written; what cannot be read is named with its place."""

import contextlib
import csv
import io

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from hjcontrol.data import DataError, load

pytestmark = pytest.mark.any_precision
GOOD = "a,b,kind\n1,2,x\n3,4,y\n5,6,x\n7,8,y\n"


def read(path, text, target=None):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(path, target)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "table.csv"


def test_last_column_is_the_target(file):
    data = read(file, GOOD)
    assert data.classes == ("x", "y")
    assert data.feature_names == ("a", "b")
    np.testing.assert_array_equal(data.features, [[1, 2], [3, 4], [5, 6], [7, 8]])
    np.testing.assert_array_equal(data.targets, [0, 1, 0, 1])
    assert data.features.dtype == np.float64
    assert data.targets.dtype.kind == "i"


def test_target_by_name(file):
    data = read(file, "kind,a\n10,1\n9,2\n10,3\n9,4\n", "kind")
    assert data.classes == ("9", "10")  # by value, not by spelling
    np.testing.assert_array_equal(data.targets, [1, 0, 1, 0])


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbf" + GOOD.encode(),
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("\n", "\n\n"),
        GOOD.replace("1,2", ' 1 ,"2"'),
        GOOD.rstrip("\n"),
        GOOD.replace("a,b,kind", '"a", b ,kind'),
    ],
    ids=["BOM", "CRLF", "blank lines", "quotes and spaces", "no last newline", "header"],
)
def test_spellings_of_one_table(file, text):
    data, plain = read(file, text), read(file, GOOD)
    np.testing.assert_array_equal(data.features, plain.features)
    assert (data.classes, data.feature_names) == (plain.classes, plain.feature_names)


@pytest.mark.parametrize("first", [0, 1])
def test_counting_header_of_pandas(file, first):
    header = ",".join(str(i) for i in range(first, first + 2))
    assert read(file, GOOD.replace("a,b", header)).feature_names == tuple(header.split(","))


BAD = {
    "empty file": (b"", ["empty"]),
    "blank lines only": ("\n\n", ["empty"]),
    "header only": ("a,b\n", ["no samples"]),
    "one column": ("a\n1\n", ["one column"]),
    "semicolons": ("a;b\n1;2\n", ["';'", "commas"]),
    "no header": ("5.1,3.5,setosa\n4,5,virginica\n", ["line 1", "5.1", "column names"]),
    "no header, whole numbers": ("0,0,5,1\n1,2,3,1\n", ["line 1", "header"]),
    "unnamed column": (",a,kind\n0,1,x\n", ["column 1", "no name"]),
    "duplicate column": ("a,a,kind\n1,2,x\n", ["columns 1 and 2", "'a'"]),
    "ragged": (GOOD.replace("3,4,y", "3,y"), ["line 3", "2 fields", "3"]),
    "ragged after blanks": (GOOD.replace("3,4,y", "\n\n3,4,5,y"), ["line 5", "4 fields"]),
    "string": (GOOD.replace("3,4", "3,four"), ["line 3", "'b'", "'four'"]),
    "underscore": (GOOD.replace("3,4", "3,4_0"), ["line 3", "'4_0'"]),
    "missing": (GOOD.replace("3,4", "3,").replace("5,6", ",6"), ["2 of 8", "line 3", "'b'"]),
    "NaN": (GOOD.replace("3,4", "nan,4"), ["1 of 8", "line 3", "'a'", "nan"]),
    "infinite": (GOOD.replace("7,8", "7,1e400"), ["1 of 8", "line 5", "'b'", "inf"]),
    "no label": (GOOD.replace("3,4,y", "3,4,"), ["line 3", "'kind'", "no label"]),
    "one class": (GOOD.replace("y", "x"), ["two classes", "all 4", "'x'"]),
    "a class a sample": ("a,t\n1,1\n2,2\n3,3\n", ["3 of 3 classes", "3 samples"]),
    "a lonely class": (GOOD + "9,9,z\n", ["1 of 3", "'z'"]),
    "continuous": ("a,t\n1,0.5\n2,1.25\n3,2\n", ["continuous", "0.5", "line 2", "3 distinct"]),
    "NaN label": ("a,t\n1,1\n2,nan\n3,2\n", ["1 labels", "line 3"]),
    "latin-1": (GOOD.replace("x", "\xe9").encode("latin-1"), ["line 2", "UTF-8", "0xe9"]),
    "UTF-16": (GOOD.encode("utf-16"), ["line 1", "UTF-8"]),
    "open quote": (GOOD + '9,"9,z\n', ["line 6", "CSV"]),
    "newline in quotes": ('a,kind\n1,"x\ny"\n2\n', ["line 4", "1 fields"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_file_is_named_with_its_place(file, case):
    text, words = BAD[case]
    with pytest.raises(DataError) as error:
        read(file, text)
    message = str(error.value)
    assert str(file) in message
    assert "\n" not in message
    for word in words:
        assert word in message


def test_missing_target_lists_the_columns(file):
    with pytest.raises(DataError, match=r"'kidn'.*'a', 'b', 'kind'.*mean 'kind'"):
        read(file, GOOD, "kidn")


def test_many_columns_are_not_all_listed(file):
    names = ",".join(f"c{i}" for i in range(50))
    with pytest.raises(DataError, match="and 38 more"):
        read(file, f"{names}\n{','.join('1' * 50)}\n", "zebra")


cells = st.floats(allow_nan=False, allow_infinity=False)
words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8).map(
    lambda s: "c" + s.strip()
)


@given(st.lists(st.tuples(cells, cells), min_size=4, max_size=12), st.sets(words, min_size=5))
def test_round_trip(tmp_path_factory, rows, names):
    a, b, t, *classes = sorted(names)
    classes = [c for c in classes[:2] if c] if len(classes) > 1 else [*classes, "d"]
    labels = [classes[i % 2] for i in range(len(rows))]
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow([a, b, t])
    writer.writerows([repr(x), repr(y), c] for (x, y), c in zip(rows, labels, strict=True))
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    data = read(path, text.getvalue())
    np.testing.assert_array_equal(data.features, rows)
    assert [data.classes[i] for i in data.targets] == labels
    assert data.feature_names == (a, b)


@given(st.binary(max_size=200))
def test_any_bytes_give_data_or_a_data_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    with contextlib.suppress(DataError):
        read(path, content)


MIXED = "age,colour,size,target\n1,red,0.5,a\n,blue,0.1,b\n3,red,,a\n4,,0.2,b\n"


def test_text_and_missing_cells_are_named_with_the_remedy(tmp_path):
    path = tmp_path / "mixed.csv"
    path.write_text("colour,kind,target\nred,x,a\nblue,y,b\nred,x,a\nred,y,b\n")
    with pytest.raises(DataError, match=r"holds 'red'.*columns 'colour', 'kind'.*--encode one-hot"):
        load(path)
    path.write_text("age,target\n1,a\n,b\n3,a\n4,b\n")
    with pytest.raises(DataError, match=r"1 of 4 values are missing.*encode='one-hot'"):
        load(path)


def test_text_and_missing_cells_are_encoded_when_asked(tmp_path):
    path = tmp_path / "mixed.csv"
    path.write_text(MIXED)
    found = load(path, encode="one-hot")
    names = [
        "age",
        "age missing",
        "colour=blue",
        "colour=missing",
        "colour=red",
        "size",
        "size missing",
    ]
    assert list(found.feature_names) == names
    by_hand = [
        [1, 0, 0, 0, 1, 0.5, 0],
        [3, 1, 1, 0, 0, 0.1, 0],
        [3, 0, 0, 0, 1, 0.2, 1],
        [4, 0, 0, 1, 0, 0.2, 0],
    ]
    np.testing.assert_array_equal(found.features, by_hand)
    path.write_text(MIXED.replace(",a", ",1.5").replace(",b", ",2.5"))
    real = load(path, encode="one-hot", regression=True)
    np.testing.assert_array_equal(real.targets, [1.5, 2.5, 1.5, 2.5])
    path.write_text("name,target\n" + "".join(f"n{i},{'ab'[i % 2]}\n" for i in range(201)))
    with pytest.raises(DataError, match="201 different texts"):
        load(path, encode="one-hot")
    with pytest.raises(DataError, match=r"is for the columns of a FILE\.csv"):
        load("iris", encode="one-hot")
