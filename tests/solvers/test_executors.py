"""A sweep whose programs run in other threads and processes: the same digits, against closed forms."""

import contextlib
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hjcontrol as hj
from hjcontrol._ground import elsewhere
from tests.solvers.test_sweeping import KEY, closed, made

SOLVER = hj.Gradient(optax.sgd(0.2), tol=1e-13)  # optax makes its functions inside functions


@contextlib.contextmanager
def threads():
    with ThreadPoolExecutor(2) as executor:
        yield executor


@contextlib.contextmanager
def spawned():
    pytest.importorskip("cloudpickle")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        yield executor


@contextlib.contextmanager
def loky():
    pytest.importorskip("cloudpickle")
    made_by = pytest.importorskip("joblib.externals.loky")
    with made_by.ProcessPoolExecutor(1, timeout=60) as executor:
        yield executor


@contextlib.contextmanager
def dask(processes):
    distributed = pytest.importorskip("distributed")
    options = {"processes": processes, "n_workers": 1, "threads_per_worker": 1}
    with (
        distributed.LocalCluster(**options, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
        client.get_executor() as executor,
    ):
        yield executor


EXECUTORS = {
    "threads": threads,
    "spawned": spawned,
    "loky": loky,
    "dask, threads": lambda: dask(processes=False),
    "dask, processes": lambda: dask(processes=True),
}


@pytest.mark.parametrize("kind", EXECUTORS)
def test_every_executor_finds_the_closed_forms(kind):
    make = lambda ridge, width: made(ridge, width)  # only cloudpickle sends this
    with EXECUTORS[kind]() as executor:
        found = hj.sweep(
            make, {"ridge": [0.1, 0.5], "width": [2, 3]}, SOLVER, executor, key=KEY, max_steps=5000
        )
    assert found.num_programs == 2
    for point, run in zip(found.points, found.runs, strict=True):
        np.testing.assert_allclose(run.objective, closed(**point), rtol=1e-12)  # of 64 bits
        assert bool(run.result == hj.RESULTS.successful)


def test_a_process_of_forks_is_refused():
    with (
        ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as executor,
        pytest.raises(ValueError, match=r"by `fork`.*get_context\(\"spawn\"\)"),
    ):
        hj.sweep(made, {"ridge": [0.1]}, SOLVER, executor, key=KEY)


def third():
    return jnp.asarray(1.0) / 3, jnp.ones(2) @ jnp.full(2, 1 / 3), jax.random.key(1)


def test_settings_and_numbers_go_with_a_job():
    """In 32 bits, as a new process begins, the job's own settings hold while it reads and runs."""
    pytest.importorskip("cloudpickle")
    held = jnp.full(3, 1 / 3)
    job = elsewhere.Job(lambda: (held, *third()), ())
    twice = pickle.dumps(pickle.loads(pickle.dumps(job)))  # a scheduler in between
    with jax.enable_x64(False), jax.default_prng_impl("rbg"):
        assert third()[0].dtype == np.float32  # the twin
        assert str(jax.random.key_impl(third()[-1])) == "rbg"
        reply = pickle.loads(twice)()
    *numbers, key = pickle.loads(reply.data)
    assert all(a.dtype == np.float64 for a in numbers)
    assert [float(a) for a in numbers[-2:]] == [1 / 3, 2 / 3]
    assert str(jax.random.key_impl(key)) == "threefry2x32"


def test_without_cloudpickle_what_pickle_can_send_is_sent(monkeypatch):
    monkeypatch.setattr(elsewhere, "installed", lambda package: False)
    sent = pickle.loads(pickle.dumps(elsewhere.Job(third, ())))
    assert float(pickle.loads(sent().data)[0]) == 1 / 3
    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(elsewhere.Job(lambda: 0, ()))
