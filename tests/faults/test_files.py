"""Files: two labels that are spelt apart are never one class; what is no file is not read; one name, many
writers.

The second reader of labels is Python itself: two samples share a class if and only if their texts are
equal, or the file is refused.
"""

import os
import threading

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given, settings

from hjcontrol._ground import files
from hjcontrol._ground.files import read_regular, write_atomically
from hjcontrol.data import DataError, load
from hjcontrol.data.loading import npz_arrays

TRICKY = ["1", "1.0", "01", "001", "1e0", "+1", "100000", "1e5", "00501", "501", "-0", "0", "yes", "1_0",
          "9007199254740993", "9007199254740992", "18446744073709551617", "nan", "NaN", "inf", "NA",
          "x\0", "x", "é", "e\u0301", "0.5", "$a_b$", "-", "''", "1 "]  # fmt: skip


def classes_of(path, labels):
    path.write_text("a,t\n" + "".join(f'{i},"{t}"\n' for i, t in enumerate(labels)), "utf-8")
    data = load(path)
    return [data.classes[k] for k in data.targets]


@given(st.lists(st.sampled_from(TRICKY), min_size=2, max_size=4, unique=True))
@settings(max_examples=150)
@example(["00501", "501"])
@example(["9007199254740993", "9007199254740992"])
@example(["x\0", "x"])
def test_labels_spelt_apart_stay_apart_or_are_refused(tmp_path_factory, spelt):
    labels = [s for s in spelt for _ in range(2)]
    try:
        found = classes_of(tmp_path_factory.mktemp("labels") / "t.csv", labels)
    except DataError:
        return
    same = lambda names: [[a == b for b in names] for a in names]
    assert same(found) == same([t.strip() for t in labels])


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["1", "1.0", "1", "1.0", "2", "2"], "spell one number"),
        (["1e5", "100000", "1e5", "100000"], "spell one number"),
        (["cat", "nan", "cat", "dog", "dog"], "missing or NaN"),
        (["1e300", "2e300", "1e300", "2e300"], "2^53"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(tmp_path, labels, words):
    with pytest.raises(DataError) as error:
        classes_of(tmp_path / "t.csv", labels)
    assert words in str(error.value)


def test_codes_and_large_numbers_keep_their_spelling(tmp_path):
    path = tmp_path / "t.csv"
    assert classes_of(path, ["00501", "501"] * 2) == ["00501", "501"] * 2
    big = ["18446744073709551616", "18446744073709551617"] * 2
    assert classes_of(path, big) == big
    assert classes_of(path, ["10", "9", "10", "9"]) == ["10", "9", "10", "9"]


def test_bytes_are_text_and_integers_exact_in_an_archive(tmp_path):
    path, X = tmp_path / "t.npz", np.ones((4, 1))
    np.savez(path, X=X, y=np.array([b"a", b"\xff", b"a", b"\xff"]))
    assert set(load(path).classes) == {"a", "\\xff"}
    np.savez(path, X=X, y=np.array([2**53, 2**53 + 1] * 2))
    assert len(load(path).classes) == 2


@pytest.fixture
def odd(tmp_path):
    """A FIFO, a device, a folder, a link to a device: none of them a file."""
    os.mkfifo(tmp_path / "fifo.csv")
    (tmp_path / "folder.csv").mkdir()
    os.symlink("/dev/zero", tmp_path / "device.csv")
    os.symlink(tmp_path / "fifo.csv", tmp_path / "fifo.npz")
    return tmp_path


@pytest.mark.parametrize("name", ["fifo.csv", "folder.csv", "device.csv", "fifo.npz"])
def test_what_is_no_file_is_refused_before_it_is_read(odd, name):
    done = []

    def refused():
        with pytest.raises(DataError) as error:
            load(odd / name)
        done.append(error)

    thread = threading.Thread(target=refused, daemon=True)
    thread.start()
    thread.join(5)
    assert done, "waits for a writer"
    assert name in str(done[0].value)


def test_a_file_over_the_limit_is_refused_and_the_limit_can_be_set(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    path.write_text("a,t\n1,x\n2,y\n3,x\n4,y\n")
    monkeypatch.setenv(files.VARIABLE, "10")
    with pytest.raises(DataError, match="limit of 10; HJCONTROL_MAX_BYTES sets another"):
        load(path)
    monkeypatch.setenv(files.VARIABLE, "1000")
    assert len(load(path)) == 4


def test_an_archive_reads_what_is_asked_for_and_no_bomb(tmp_path, monkeypatch):
    path = tmp_path / "t.npz"
    np.savez_compressed(path, X=np.ones((4, 1)), y=np.array([0, 1, 0, 1]), bomb=np.zeros(10**7))
    monkeypatch.setenv(files.VARIABLE, str(10**6))
    assert len(load(path)) == 4
    with pytest.raises(DataError, match=r"array 'bomb'.*80000000 bytes|80000000 bytes"):
        npz_arrays(path)["bomb"]


def test_threads_write_one_name_and_none_fails(tmp_path):
    path, faults = tmp_path / "result.json", []

    def write(i):
        try:
            for _ in range(20):
                write_atomically(path, str(i) * 500)
                read_regular(path)
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert faults == []
    assert len(set(path.read_text())) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_a_temporary_name_is_never_somebody_elses(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    monkeypatch.setattr(files.secrets, "token_hex", lambda n: "known")
    os.symlink(victim, tmp_path / ".hjcontrol-known.tmp")
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "result.json", "theirs")
    assert victim.read_text() == "mine"
    assert not (tmp_path / "result.json").exists()


def test_text_of_no_encoding_is_written(tmp_path):
    assert write_atomically(tmp_path / "a", "x\udcff").read_bytes() == b"x?"
