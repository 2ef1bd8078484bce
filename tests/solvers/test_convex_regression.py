"""Convex regression: anchored optima, a bound below, and max-affine and smoothed exports."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.layers.certifying import certify
from hjcontrol.solvers.convex import ConvexRegression

judge = eqx.filter_jit(certify)


def bowls(sizes=(50, 100, 200), d: int = 3):
    """The anchors' recipe: one generator, drawn from in sequence."""
    rng = np.random.default_rng(0)
    for n in sizes:
        x = rng.standard_normal((n, d))
        yield n, ConvexRegression(x, 0.5 * (x**2).sum(1) + 0.1 * rng.standard_normal(n))


@pytest.fixture(scope="module")
def small():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((24, 2))
    p = ConvexRegression(x, 0.5 * (x**2).sum(1) + 0.3 * rng.standard_normal(24))
    return p, p.solve(tol=1e-9)


@pytest.mark.parametrize(
    ("n", "p", "optimum"),
    [
        (*pair, optimum)
        for pair, optimum in zip(bowls(), (0.021714, 0.027108, 0.362359), strict=True)
    ],
    ids=lambda v: str(v) if isinstance(v, int) else "",
)
def test_the_anchored_optima(n, p, optimum):  #: relative gap 3e-10
    s = p.solve()
    assert float(s.objective) == pytest.approx(optimum, abs=5.5e-7)
    assert 0 <= float(s.relative_gap) <= 1e-7
    assert s.stats["constraints"] < n * (n - 1)
    assert bool(s.result == hj.RESULTS.successful)


def test_the_whole_program_by_cvxpy_agrees(small):  #: 1e-9
    import cvxpy as cp

    p, s = small
    x, n = np.asarray(p.inputs), len(p.inputs)
    theta, xi = cp.Variable(n), cp.Variable(x.shape)
    planes = [theta[j] + (x - x[j]) @ xi[j] <= theta for j in range(n)]
    program = cp.Problem(cp.Minimize(cp.sum_squares(theta - np.asarray(p.targets))), planes)
    assert program.solve(solver=cp.CLARABEL) == pytest.approx(float(s.objective), rel=1e-7)
    np.testing.assert_allclose(theta.value, s.native.candidate.values, atol=1e-4)


def test_the_certificate_catches_wrong_values_slopes_and_multipliers(small):
    p, s = small
    c, lam = s.native.candidate, s.native.dual
    assert judge(p, c, lam).verdict in ("optimal", "near-optimal")
    lowered = c._replace(values=c.values.at[5].add(-1e-2))
    assert judge(p, lowered, lam).verdict == "infeasible"
    assert float(judge(p, lowered, lam).primal) == pytest.approx(1e-2, rel=1e-3)
    tilted = c._replace(slopes=c.slopes.at[5].add(0.1))
    assert judge(p, tilted, lam).verdict == "infeasible"
    raised = c._replace(values=c.values + 1e-3)
    assert judge(p, raised, lam).verdict == "not certified"
    assert judge(p, c, 1.01 * lam).verdict == "not certified"
    assert judge(p, c, lam.T).verdict == "infeasible"  # a flow the wrong way round


def test_the_network_is_max_affine_and_interpolates(small):  #: 2e-15
    p, s = small
    f = eqx.filter_jit(lambda z: jax.vmap(s.native)(z)[:, 0])
    np.testing.assert_allclose(f(p.inputs), s.native.candidate.values, atol=1e-12)
    a, b = jax.random.normal(jax.random.key(0), (2, 24, 2))
    assert bool(jnp.all(f(0.5 * (a + b)) <= 0.5 * f(a) + 0.5 * f(b) + 1e-12))


@pytest.mark.parametrize("eps", [1.0, 0.1, 1e-3])
def test_smoothing_lies_above_by_at_most_eps_log_n(small, eps):
    p, s = small
    chain, weights, most = p.smoothed(s.native.candidate, eps)
    x = 2.0 * jax.random.normal(jax.random.key(1), (30, 2))
    above = eqx.filter_jit(lambda c, z: jax.vmap(lambda x: c(weights, x) - s.native(x))(z))(
        chain, x
    )
    assert float(above.min()) >= -1e-12
    assert float(above.max()) <= float(most) + 1e-12
    assert float(most) == pytest.approx(eps * np.log(24))
    assert float(above.max()) > 0.05 * float(most)  # the bound is not idle


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (np.zeros((3, 1)), np.arange(3.0), "distinct"),
        (np.array([[0.0], [np.inf]]), np.zeros(2), "finite"),
        (np.zeros((1, 2)), np.zeros(1), "two samples"),
    ],
)
def test_bad_input_is_refused(x, y, words):
    with pytest.raises(ValueError, match=words):
        ConvexRegression(x, y)


def test_a_convex_function_is_fitted_exactly():
    x = np.random.default_rng(0).standard_normal((30, 2))
    s = ConvexRegression(x, np.abs(x).sum(axis=1)).solve()
    assert float(s.objective) <= 1e-9
    assert bool(s.result == hj.RESULTS.successful)
