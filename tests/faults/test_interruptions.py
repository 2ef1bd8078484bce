"""Ctrl-C however often, a full disk, another machine's checkpoint: nothing that was finished is lost.

A signal that arrives while the loop runs is noted; the chunk ends, the checkpoint is written whole, and
then one `KeyboardInterrupt` is raised.
"""

import errno
import json
import os
import signal

import jax
import numpy as np
import pytest

from hjcontrol._ground import files
from hjcontrol._ground.interruptions import SIGNALS, held, interrupted_once
from hjcontrol.solvers import Checkpoint
from hjcontrol.solvers import checkpoint as module
from tests.solvers.interrupted import bits, run

STEPS = 400


@pytest.fixture(scope="module")
def whole():
    return bits(run("minibatches", STEPS))


def agree(solution, whole):
    for a, b in zip(bits(solution), whole, strict=True):
        np.testing.assert_array_equal(a, b)


def pressed(step, times, which=signal.SIGINT):
    """Progress that presses Ctrl-C `times` times once `step` is reached."""
    reached = []

    def progress(now, *_):
        if now >= step:
            reached.append(now)
            for _ in range(times):
                signal.raise_signal(which)

    return progress, reached


@pytest.mark.parametrize("times", [1, 2, 3])
def test_ctrl_c_however_often_leaves_the_last_finished_chunk(whole, tmp_path, times):
    progress, reached = pressed(60, times)
    with pytest.raises(KeyboardInterrupt):
        run("minibatches", STEPS, checkpoint=tmp_path, progress=progress)
    newest = sorted(tmp_path.iterdir())[-1]
    assert newest.name == f"checkpoint-{reached[-1]:012d}.npz"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    agree(run("minibatches", STEPS, checkpoint=tmp_path, resume=True), whole)


def test_ctrl_c_while_a_checkpoint_is_written_lets_it_be_written(tmp_path, monkeypatch):
    sync = os.fsync

    def interrupted(descriptor):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        sync(descriptor)

    place = Checkpoint(tmp_path, every=0)
    run_on = lambda *a: monkeypatch.setattr(files.os, "fsync", interrupted) if a[0] >= 30 else None
    with pytest.raises(KeyboardInterrupt):
        run("minibatches", STEPS, checkpoint=place, progress=run_on)
    monkeypatch.undo()
    assert all(module._read(p)[0]["steps"] >= 0 for p in tmp_path.glob("*.npz"))
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("which", SIGNALS)
def test_the_first_signal_is_raised_and_the_rest_are_ignored(which):
    before = [signal.getsignal(s) for s in SIGNALS]
    with interrupted_once():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(which)
        signal.raise_signal(which)
        signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(s) for s in SIGNALS] == before


def test_a_handler_of_somebody_else_stays():
    mine = lambda *_: None
    before = signal.signal(signal.SIGTERM, mine)
    try:
        with held():
            assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_full_disk_costs_no_run(whole, tmp_path, monkeypatch):
    full, sync = [False], os.fsync

    def fsync(descriptor):
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(files.os, "fsync", fsync)
    fill = lambda step, *_: full.__setitem__(0, step >= 60)
    place = Checkpoint(tmp_path, every=0)
    with pytest.warns(UserWarning, match=r"could not be written .*bytes.* is the newest whole one"):
        agree(run("minibatches", STEPS, checkpoint=place, progress=fill), whole)
    kept = sorted(p.name for p in tmp_path.iterdir())
    assert kept
    assert all(module._NAME.fullmatch(name) for name in kept)
    full[0] = False
    agree(run("minibatches", STEPS, checkpoint=place, resume=True), whole)


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    folder = tmp_path_factory.mktemp("left")
    run("minibatches", 20, checkpoint=Checkpoint(folder, every=0))
    return sorted(folder.iterdir())[-1]


def sabotaged(path, folder, change):
    """A copy whose header or arrays `change` has altered, with a digest that is right again or not."""
    header, arrays = module._read(path)
    again = change(header, arrays)
    header["digest"] = module._digest(header, arrays) if again else "0" * 64
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(folder / path.name, header=text, **arrays)


def removed(what, name, again=True):
    return lambda header, arrays: ({"header": header, "arrays": arrays}[what].pop(name), again)[1]


def put(what, name, value, again=True):
    def change(header, arrays):
        {"header": header, "arrays": arrays, "versions": header["run"]["versions"]}[what][name] = (
            value
        )
        return again

    return change


REFUSED = {
    "an array is missing": (removed("arrays", "leaf0"), "lacks leaf0"),
    "the history is missing": (removed("arrays", "history"), "lacks history"),
    "the steps are missing": (removed("header", "steps"), "lacks steps"),
    "the keys are missing": (removed("header", "keys"), "lacks keys"),
    "one array more": (put("arrays", "leaf99", np.ones(2)), "arrays"),
    "another shape": (put("arrays", "leaf0", np.ones((2, 2, 2, 2))), "float64"),
    "32-bit floats": (put("versions", "x64", "False"), "x64 = False; here it is True"),
    "eight devices": (put("versions", "devices", "8"), "as many devices"),
    "another format": (put("header", "format", 1), "has format 1"),
}
DAMAGED = {
    "the step in the header": put("header", "steps", 5, again=False),
    "the chunk in the header": put("header", "chunk", 77, again=False),
    "a weight": put("arrays", "leaf0", np.zeros(1), again=False),
    "the run": put("header", "run", {}, again=False),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_checkpoint_that_does_not_fit_is_refused_with_the_remedy(left, tmp_path, case):
    change, words = REFUSED[case]
    sabotaged(left, tmp_path, change)
    with pytest.raises(module.CheckpointError) as error:
        run("minibatches", STEPS, checkpoint=tmp_path, resume=True)
    assert words in str(error.value)


@pytest.mark.parametrize("case", DAMAGED)
def test_the_header_is_inside_the_digest(left, tmp_path, case):
    sabotaged(left, tmp_path, DAMAGED[case])
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(module.CheckpointError, match="every checkpoint"),
    ):
        run("minibatches", STEPS, checkpoint=tmp_path, resume=True)


def test_damage_that_zipfile_does_not_call_damage_is_damage(whole, tmp_path):
    run("minibatches", 60, checkpoint=Checkpoint(tmp_path, every=0))
    newest = sorted(tmp_path.iterdir())[-1]
    content = bytearray(newest.read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 86  # the zip version that is needed: 8.6
    newest.write_bytes(content)
    with pytest.warns(UserWarning, match="damaged"):
        agree(run("minibatches", STEPS, checkpoint=tmp_path, resume=True), whole)


def test_precision_is_named_before_anything_else(left, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 3)
    with pytest.raises(module.CheckpointError, match=r"devices = 1; here it is 3"):
        run("minibatches", STEPS, checkpoint=left.parent, resume=True)
