"""A bad call is refused at once, in this library's words: every public callable, argument by argument.

One argument of a right call is replaced by text, nothing, an object, a class, a complex number, NaN,
infinity, a negative number, an array of another rank or type. The call must raise `ValueError` or
`TypeError` by a `raise` of this library, or hand the NaN on. `WELCOME` names what is meant to work.
"""

import importlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

import hjcontrol as hj
from hjcontrol._ground.arguments import admits
from hjcontrol.networks import Dense, Residual, SoftplusUnits
from tests.faults.bad_values import bad_values, outcome
from tests.faults.elsewhere import ELSEWHERE
from tests.faults.good_calls import KEY, X, calls, problem, weights

WELCOME = {
    ("analysis.temperature.window", "dimension", "fraction"): "a set may have such a dimension",
    ("control.Box", "lower", "matrix"): "a bound for each weight",
    ("control.Box", "upper", "matrix"): "a bound for each weight",
    ("control.Guess", "weights", "none"): "`key=` draws them",
    ("control.Budget", "limit", "negative"): "a function may spend less than nothing",
    ("control.check_batch_size", "size", "none"): "full batches",
    ("control.minibatch", "size", "none"): "full batches",
    ("layers.Clip", "hi", "matrix"): "a bound for each logit",
    ("layers.Clip", "lo", "matrix"): "a bound for each logit",
    ("layers.HalfSpace", "b", "negative"): "0 lies outside",
    ("layers.Potential", "hi", "inf"): "no bound",
    ("layers.Potential", "lo", "inf"): "no bound",
    ("layers.Separable", "a", "matrix"): "a weight for each logit, refused with the sample",
    ("layers.Separable", "hi", "matrix"): "a bound for each logit, refused with the sample",
    ("layers.Separable", "lo", "matrix"): "a bound for each logit, refused with the sample",
    ("layers.Separable", "total", "negative"): "a sum",
    ("solvers.convex.fit_jointly", "eps", "number"): "a temperature that is held",
    ("networks.Chain", "state", "nan"): "only its shape is read",
    ("networks.soft_mean", "eps", "inf"): "the mean",
}
OWN = (
    "hamiltonian",
    "advance",
    "terminal_costate",
)  # whatever a stage takes: what it refuses, it refuses in its own words
# A NaN never holds.
NUMBERS = tuple(f"reproduction.{n}" for n in ("at_least", "at_most", "equal", "zero"))


def faults(who):
    """What is wrong with the bad calls of one callable, and how many there were."""
    function, arguments = calls()[who]()
    found, count = [], 0
    for name, good in arguments.items():
        for kind, bad in bad_values(function, name, good).items():
            told, words = outcome(function, arguments | {name: bad}, who, name)
            count += 1
            judged = (who, name, kind) in WELCOME or who.endswith(OWN)
            judged |= who in NUMBERS and kind in ("nan", "matrix")
            if told not in ("clear", "said") and not judged:
                found.append(f"{name} <- {kind}: {told}, {words}")
    return found, count


@pytest.mark.parametrize("who", sorted(calls()))
def test_a_bad_argument_is_refused_in_our_words(who, unchecked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # what is accepted may write
    found, count = faults(who)
    assert not found, "\n".join(found)
    assert count > 0


def test_everything_public_is_tried():
    tried = set(calls()) | set(ELSEWHERE)
    public = set()
    own = {"verification", "testing", "reporting.plots"}  # these have sweeps of their own
    for room in set(hj._ROOMS) - own | {"reproduction", "reproduction.questions"}:
        module = importlib.import_module(f"hjcontrol.{room}")
        for name in module.__all__:
            here = getattr(module, name)
            inner = getattr(here, "__all__", ()) if inspect.ismodule(here) else ()
            public |= {f"{room}.{name}.{n}" for n in inner if callable(getattr(here, n))}
            if callable(here) and not inspect.ismodule(here):
                public.add(f"{room}.{name}")
    assert sorted(public - tried) == []
    assert sorted(set(ELSEWHERE) & set(calls())) == []


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: hj.solve(problem(), hj.solvers.Newton), "the class Newton itself"),
        (lambda: hj.deformation.lse(X[0], "a"), "`eps` must be a real number"),
        (lambda: hj.deformation.lse(X[0] + 1j, 0.5), "floats; found complex128"),
        (lambda: problem().take(jnp.array([100])), "`index` must be >= -6, < 6; found 100"),
        (lambda: problem().objective(hj.ControlProblem([Dense(2, 5), Dense(5, 2)], X,
            terminal=jnp.sum).init(KEY)), "`weights` must be shaped as"),
        (lambda: hj.solvers.Newton(tol=np.inf), "`tol` must be >= 0 and finite; found inf"),
        (lambda: Residual(Dense(2, 2), np.nan), "`h` must be finite; found nan"),
        (lambda: problem().init(0), "a key, as from `jax.random.key"),
        (lambda: hj.networks.architecture("residual", 2, 2, depth=-1), "depth"),
        (lambda: hj.control.softmax_cross_entropy(X[0], jnp.array(7)), "found 2 logits, labels 7 to 7"),
    ],
)  # fmt: skip
def test_the_calls_that_were_reported(call, words, unchecked):
    with pytest.raises(ValueError) as caught:
        call()
    assert words in str(caught.value)


def test_a_subset_of_a_fraction_comes_back(unchecked):
    from tests.faults.good_calls import data

    with pytest.raises(ValueError, match="`count` must be a whole number"):
        hj.data.subset(data(), 1.5, key=KEY)


@pytest.mark.parametrize("under", [jax.jit, jax.vmap, jax.grad])
def test_what_needs_values_says_so_under_a_transformation(under, unchecked):
    solve = lambda w: hj.solve(problem(), "newton", init=jax.tree.map(lambda a: a + w, weights()))
    operand = jnp.zeros(2) if under is jax.vmap else 0.0
    with pytest.raises(ValueError, match=r"solve: the values of `init` are needed"):
        under(solve)(operand)


def test_nan_logits_have_a_nan_gradient():
    slope = jax.grad(lambda z: hj.deformation.lse(z, 1.0))(jnp.array([jnp.nan, 1.0]))
    assert bool(jnp.isnan(slope).all())
    mean = hj.deformation.streaming_gibbs_mean(X * jnp.nan, X, X[:, 0], X, 1.0)
    assert bool(jnp.isnan(mean).all())


@admits(count=">= 1", eps="> 0 or inf")
def example(x: Float[Array, "n d"], y: Float[Array, " n"], count: int = 1, eps: float = 1.0):
    return x, y, count, eps


def test_the_door_lets_in_what_fits():
    x, _, count, eps = example(np.arange(6).reshape(3, 2), jnp.ones(3), np.int64(4), np.inf)
    assert x.dtype.kind == "f"
    assert (count, eps) == (4, np.inf)
    assert jax.eval_shape(example, X, X[:, 0])[0].shape == X.shape
    assert SoftplusUnits(1).eps.shape == ()
    assert example(X, X[:, 1], eps=2.0)[3] == 2.0


def test_the_door_knows_equal_axes(unchecked):
    with pytest.raises(ValueError, match=r"shape \[n\] where n = 6; found float64\[2\]"):
        example(X, X[0])
