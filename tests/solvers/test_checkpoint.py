"""Interrupted and resumed, a run ends as if it had not been: to the bit. Another run's is refused."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import optax
import pytest

import hjcontrol as hj
from hjcontrol._ground.fingerprint import describe
from hjcontrol.solvers import Checkpoint, Gradient, driver
from hjcontrol.solvers import checkpoint as module
from tests.solvers.interrupted import ADAM, bits, run
from tests.solvers.problems import rings

STEPS = {"minibatches": 700, "newton": 60}
KILLED = 4000


def equal(a, b):
    for u, v in zip(bits(a), bits(b), strict=True):
        np.testing.assert_array_equal(u, v)


def stop_at(step):
    def progress(now, *_):
        if now >= step:
            raise KeyboardInterrupt

    return progress


@pytest.fixture(scope="module")
def whole():
    return {name: run(name, steps) for name, steps in STEPS.items()}


@pytest.fixture
def left(tmp_path):
    """A folder with the checkpoints of a run that Ctrl-C ended."""
    place = Checkpoint(tmp_path / "run", every=0, keep=3)
    with pytest.raises(KeyboardInterrupt):
        run("minibatches", 700, checkpoint=place, progress=stop_at(100))
    return tmp_path / "run"


@pytest.mark.parametrize("name", STEPS)
def test_a_chain_of_interruptions_changes_nothing(whole, name, tmp_path):
    for step in range(2, STEPS[name], STEPS[name] // 5):
        with pytest.raises(KeyboardInterrupt):
            run(name, STEPS[name], checkpoint=tmp_path, resume=True, progress=stop_at(step))
    equal(run(name, STEPS[name], checkpoint=tmp_path, resume=True), whole[name])


@pytest.mark.parametrize("name", STEPS)
def test_the_size_of_a_chunk_and_the_time_of_day_do_not_enter(whole, name, monkeypatch):
    monkeypatch.setattr(driver, "CHUNK_SECONDS", 0.0)  # chunks of one step
    equal(run(name, STEPS[name]), whole[name])


def test_a_finished_run_is_given_back_and_a_longer_one_goes_on(whole, tmp_path):
    run("minibatches", 350, checkpoint=tmp_path)
    again = run("minibatches", 350, checkpoint=tmp_path, resume=True)
    assert again.stats["num_steps"] == 350
    equal(run("minibatches", 700, checkpoint=tmp_path, resume=True), whole["minibatches"])
    with pytest.raises(ValueError, match="at step 700, beyond `max_steps` = 10"):
        run("minibatches", 10, checkpoint=tmp_path, resume=True)


def test_a_failing_step_fails_again_after_resuming(tmp_path):
    blow = lambda **o: hj.solve(
        rings(), Gradient(optax.sgd(1e200)), key=jax.random.key(0), max_steps=20, **o
    )
    once, again = blow(checkpoint=tmp_path), blow(checkpoint=tmp_path, resume=True)
    assert once.result == hj.RESULTS.nonfinite
    assert again.result == hj.RESULTS.nonfinite
    equal(once, again)


@pytest.mark.parametrize("harm", ["cut", "empty", "flipped", "foreign"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(whole, left, harm):
    newest = sorted(left.glob("*.npz"))[-1]
    content = bytearray(newest.read_bytes())
    if harm == "flipped":
        content[len(content) // 2] ^= 1
    else:
        content = {"cut": content[:-99], "empty": b"", "foreign": b"not an archive"}[harm]
    newest.write_bytes(content)
    with pytest.warns(UserWarning, match="damaged"):
        equal(run("minibatches", 700, checkpoint=left, resume=True), whole["minibatches"])


def test_damaged_checkpoints_of_later_steps_do_not_crowd_out_whole_ones(tmp_path):
    names = ("problem", "method", "start", "key")
    run = {name: {} for name in names} | {"versions": {"python": "any"}}
    at = lambda step: module.Snapshot(np.full(3, float(step)), step, [], 0.0, 1)
    module.Keeper(Checkpoint(tmp_path), run, False).write(at(100))
    for step in (200, 300):
        (tmp_path / f"checkpoint-{step:012d}.npz").write_bytes(b"torn")
    keeper = module.Keeper(Checkpoint(tmp_path), run, True)
    with pytest.warns(UserWarning, match="damaged"):
        assert keeper.newest(np.zeros(3)).steps == 100
    keeper.write(at(150))
    assert keeper.newest(np.zeros(3)).steps == 150
    assert len(list(tmp_path.glob("*.damaged"))) == 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FORMAT", 3)
        with pytest.raises(module.CheckpointError, match="has format 2; this version reads 3"):
            keeper.newest(np.zeros(3))


def test_all_damaged_is_refused_and_pickles_are_not_loaded(left):
    for path in left.glob("*.npz"):
        np.savez(path, header=np.array([{"an": "object"}], object))
    with (
        pytest.warns(UserWarning, match="allow_pickle"),
        pytest.raises(module.CheckpointError, match="every checkpoint"),
    ):
        run("minibatches", 700, checkpoint=left, resume=True)


def test_an_interruption_of_the_write_leaves_the_one_before(whole, left, monkeypatch):
    before = sorted(left.iterdir())

    def torn(temporary, path):
        del temporary, path
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", torn)
        with pytest.raises(KeyboardInterrupt):
            run("minibatches", 700, checkpoint=Checkpoint(left, every=0, keep=3), resume=True)
    assert sorted(left.iterdir()) == before
    equal(run("minibatches", 700, checkpoint=left, resume=True), whole["minibatches"])


def test_another_run_is_refused_with_what_differs(left):
    def ask(problem, method, seed):
        return hj.solve(problem, method, key=jax.random.key(seed), checkpoint=left, resume=True)

    same = Gradient(ADAM, batch_size=8)
    faster, smaller = Gradient(optax.adam(2e-2), batch_size=8), Gradient(ADAM, batch_size=4)
    for what, words in (
        ((rings(ridge=2e-2), same, 0), r"problem differs: running\[0\]\.strength: float64\[\] "),
        ((rings(), faster, 0), "method differs: .*-0.01 then, -0.02 now"),
        ((rings(), smaller, 0), "method differs: batch_size: 8 then, 4 now"),
        ((rings(), same, 1), "start differs"),
    ):
        with pytest.raises(module.CheckpointError, match=words):
            ask(*what)


def test_other_versions_are_warned_of(left, monkeypatch):
    monkeypatch.setattr(module, "version", lambda name: "0.0")
    with pytest.warns(UserWarning, match=r"jax: .* then, 0\.0 now.*last digits"):
        run("minibatches", 700, checkpoint=left, resume=True)


def test_a_folder_in_use_is_not_overwritten(left):
    with pytest.raises(module.CheckpointError, match=r"already holds a checkpoint.*resume=True"):
        run("minibatches", 700, checkpoint=left)


def test_bad_requests(tmp_path):
    with pytest.raises(ValueError, match="`resume=True` needs `checkpoint=`"):
        run("newton", 1, resume=True)
    with pytest.raises(ValueError, match="direct runs outside JAX"):
        hj.solve(rings(), hj.solvers.Direct(), key=jax.random.key(0), checkpoint=tmp_path)
    with pytest.raises(ValueError, match="`every` must be >= 0"):
        Checkpoint(tmp_path, every=-1.0)
    with pytest.raises(ValueError, match="`keep` must be >= 2"):
        Checkpoint(tmp_path, keep=1)


def test_descriptions_tell_closures_and_code_apart_and_hold_no_address():
    assert describe(optax.adam(1e-2)) == describe(optax.adam(1e-2))
    assert describe(optax.adam(1e-2)) != describe(optax.adam(1e-3))
    assert describe(lambda x: x + 1) != describe(lambda x: x + 2)
    assert " at 0x" not in str(describe([rings(), optax.lbfgs(), jax.jit(np.sum)]))


def test_killed_at_random_moments(tmp_path):
    """Three kills here, one of them while a checkpoint is being written; dozens in
    `benchmarks/kill_and_resume.py`."""
    draw = random.Random(20261125)
    root = pathlib.Path(__file__).parents[2]
    line = ["-m", "tests.solvers.interrupted", tmp_path / "run", "minibatches", str(KILLED)]
    line = [sys.executable, *line, tmp_path / "result.npz"]
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }
    for kill in ("writing", "any", "any", None):
        process = subprocess.Popen(
            line, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        if kill is not None:
            process.stdout.readline()
            if kill == "writing":
                while not list((tmp_path / "run").glob(".*.tmp")):
                    time.sleep(1e-3)
            else:
                time.sleep(draw.uniform(0, 0.2))
            process.send_signal(signal.SIGKILL)
        words = process.communicate(timeout=120)[1]
        assert process.returncode == (0 if kill is None else -signal.SIGKILL), words
    with np.load(tmp_path / "result.npz") as found:
        for a, b in zip(bits(run("minibatches", KILLED)), found.values(), strict=True):
            np.testing.assert_array_equal(a, b)
    assert not list((tmp_path / "run").glob(".*.tmp"))
