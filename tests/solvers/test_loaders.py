"""Samples as a user's loader gives them, and what a solution says of them when it is printed."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hjcontrol as hj

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 3))
Y = np.sin(X[:, :2])
MODEL = eqx.nn.Linear(3, 2, key=jax.random.key(1))
SGD = hj.Gradient(optax.sgd(0.1))
BATCHES = [(X[a : a + 8], Y[a : a + 8]) for a in (0, 8, 16)]  # the last one is smaller


def stated(inputs, targets=None, **options):
    return hj.ControlProblem(MODEL, inputs, targets, terminal=hj.least_squares, **options)


def by_hand(batches):
    """Gradient descent on a linear map, in NumPy."""
    W, b = np.array(MODEL.weight), np.array(MODEL.bias)
    for x, y in batches:
        left = (x @ W.T + b - y) / len(x)
        W, b = W - 0.1 * left.T @ x, b - 0.1 * left.sum(0)
    return W, b


def cost(W, b, x=X, y=Y):
    return 0.5 * np.mean(np.sum((x @ W.T + b - y) ** 2, axis=1))


def apart(model, right):
    return max(np.abs(model.weight - right[0]).max(), np.abs(model.bias - right[1]).max())


def broken(x, y):
    """A loader whose third batch has a value that is not finite."""
    for k, (a, b) in enumerate(BATCHES):
        yield (a * x, b * y) if k == 2 else (a, b)


@pytest.mark.parametrize("of", [list, tuple, lambda batches: lambda: iter(batches)])
def test_batches_are_taken_as_they_come_and_the_solution_prints(of):
    problem = stated(of(BATCHES))
    found = hj.solve(problem, SGD, max_steps=4)
    right = by_hand([*BATCHES, BATCHES[0]])
    assert apart(found.model, right) <= 1e-14
    assert apart(found.model, by_hand(BATCHES)) > 1e-4  # the twin
    assert abs(found.objective - cost(*right)) <= 1e-14
    assert "batches of a loader, 1 stages, 8 weights" in str(found)
    assert "batches of float64[8, 3], float64[8, 2]" in repr(problem)
    with pytest.raises(RuntimeError, match="step limit was reached"):
        hj.solve(problem, SGD, max_steps=1, throw=True)


@pytest.mark.parametrize("name", ["inputs", "targets"])
def test_a_batch_that_is_not_finite_is_named_where_the_solution_is_printed(name):
    factor = {"inputs": (np.nan, 1.0), "targets": (1.0, np.inf)}[name]
    found = hj.solve(stated(lambda: broken(*factor)), SGD, max_steps=6)
    assert bool(found.result == hj.RESULTS.nonfinite)
    assert f"`{name}` of batch 2 are not finite" in str(found)
    assert "finite" not in str(hj.solve(stated(lambda: broken(1.0, 1.0)), SGD, max_steps=6))


def test_a_row_of_a_file_that_is_not_finite_is_named(tmp_path):
    x = X.copy()
    x[17] = np.nan
    x.tofile(tmp_path / "x")
    mapped = np.memmap(tmp_path / "x", float, "r", shape=x.shape)
    solver = hj.Gradient(optax.sgd(0.1), batch_size=4)
    for inputs in (mapped, x):
        found = hj.solve(stated(inputs, Y), solver, key=jax.random.key(0), max_steps=9)
        assert "`inputs` of sample 17 are not finite" in str(found)


class Tensor:
    """An array of another library."""

    def __init__(self, value):
        self.value, self.shape, self.dtype = value, value.shape, "tensor.float64"

    def __array__(self, dtype=None, copy=None):
        if self.value is MASK:
            raise RuntimeError("it requires a gradient")
        return np.asarray(self.value, dtype)


MASK = X.copy()


def test_arrays_of_another_library_are_read():
    found = hj.solve(stated(Tensor(X), Tensor(Y)), SGD, max_steps=2)
    assert apart(found.model, by_hand([(X, Y)] * 2)) <= 1e-14
    assert np.array_equal(found.predict(Tensor(X[:3])), found.predict(X[:3]))
    with pytest.raises(ValueError, match="a Tensor must become an array of NumPy: it requires"):
        stated(Tensor(MASK), Y)
    with pytest.raises(ValueError, match="must hold numbers; found a Tensor of <U1"):
        stated(Tensor(X), Tensor(np.array(["a"] * 20)))


def test_lists_of_numbers_beside_each_other_stay_apart():
    """Inputs and forcing of one shape were one array to a prediction."""
    step = lambda x, w, u: x + w * u
    x, u = np.ones((3, 2)), np.full((3, 1, 2), 2.0)
    problem = hj.ControlProblem(
        [(step, np.ones(2), "forcing")], x, terminal=lambda x: x @ x, forcing=u
    )
    found = hj.solve(problem, SGD, max_steps=0)
    assert np.array_equal(found.predict(x.tolist(), forcing=u.tolist()), x + u[:, 0])


def test_targets_take_the_precision_of_the_inputs():
    """In 64 bits beside inputs in 32 they made J one number and its gradient another's."""
    x, y = X.astype(np.float32), Y.astype(np.float32)
    one, other = (hj.solve(stated(x, t), SGD, max_steps=3) for t in (Y, y))
    assert one.objective.dtype == one.model.weight.dtype == jnp.float32
    assert one.objective == other.objective
    assert hj.solve(stated(X, Y), SGD, max_steps=3).objective.dtype == jnp.float64
    streamed = hj.solve(stated([(x, Y)]), SGD, max_steps=3)
    assert streamed.objective.dtype == jnp.float32
    assert abs(streamed.objective - one.objective) <= 1e-6


def test_samples_held_out_are_measured_at_the_end_too():
    held = (X[:5], -Y[:5])
    rights = [by_hand([(X, Y)] * k) for k in range(8)]
    wanted = lambda k: cost(*rights[k], *held)
    for of in ((X, Y), ([(X, Y)],)):
        found = hj.solve(stated(*of), SGD, max_steps=7, validation=held, every=5)
        steps, values = found.stats["validation"].T
        assert steps.tolist() == [5, 7]
        assert np.abs(values - [wanted(5), wanted(7)]).max() <= 1e-14
        assert abs(wanted(5) - wanted(7)) > 1e-4  # the twin
    kept = hj.solve(stated(X, Y), SGD, max_steps=7, validation=held, every=5, patience=9)
    best = min((5, 7), key=wanted)
    assert apart(kept.model, rights[best]) <= 1e-14
    short = hj.solve(stated(X, Y), SGD, max_steps=3, validation=held)
    assert short.stats["validation"][:, 0].tolist() == [3]


def test_a_validation_without_an_end_is_said_to_have_none():
    """A cost that overflows on the samples held out is no smallest one."""
    huge = (1e200 * X[:4], Y[:4])
    found = hj.solve(stated(X, Y), SGD, max_steps=9, validation=huge, every=1, patience=2)
    assert bool(found.result == hj.RESULTS.stopped)
    assert "No validation cost that is a finite number in the last 2 looks" in str(
        found.stats["message"]
    )
    assert apart(found.model, by_hand([(X, Y)] * 2)) <= 1e-14
