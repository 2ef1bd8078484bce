"""How a program ends: no point and a falling cost together, and quadratic forms of a parameter."""

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.layers import QuadraticProgram
from hjcontrol.layers.conic import reading


def falling(seed: int, contradicted: bool) -> tuple[np.ndarray, ...]:
    """A cost that falls along the last entry, which every row allows; g.x <= -1, or not, -g.x <= -1."""
    rng = np.random.default_rng(seed)
    g, q, rows = rng.standard_normal(5), rng.standard_normal(5), rng.standard_normal((4, 5))
    g[-1], q[-1], rows[:, -1] = 0.0, -abs(q[-1]) - 0.1, -np.abs(rows[:, -1])
    other = -g if contradicted else np.zeros(5)
    G = np.vstack([g, other, rows])
    return q, G, np.concatenate([[-1.0, -1.0 if contradicted else 1.0], rng.standard_normal(4)])


@pytest.mark.parametrize("contradicted", [True, False])
def test_a_falling_cost_without_a_point_is_infeasible(contradicted):
    """Farkas' vector is multiplied out here; the twin has a point, and is unbounded."""
    data = [np.stack(v) for v in zip(*(falling(k, contradicted) for k in range(100)), strict=True)]
    solve = jax.jit(
        jax.vmap(lambda q, G, h: QuadraticProgram(jnp.zeros((5, 5)), q, G=G, h=h).solve())
    )
    found = solve(*map(jnp.asarray, data))
    assert bool(jnp.all(found.infeasible)) == contradicted
    assert bool(jnp.all(found.unbounded)) != contradicted
    if contradicted:
        z, (_, G, h) = np.asarray(found.proof)[:, 5:], data
        assert np.all(z >= 0)
        assert np.max(np.abs(np.einsum("bmn,bm->bn", G, z))) < 1e-6
        assert np.all(np.einsum("bm,bm->b", h, z) < -0.1)


@pytest.mark.parametrize(("level", "end"), [(-1.0, "infeasible"), (1.0, "unbounded")])
def test_on_a_cone_too(level, end):
    """x falls below the level of exp(x), which is no point's where it is negative."""
    x, b = cp.Variable(name="x"), cp.Parameter(name="b")
    found = hj.ProgramLayer(cp.Problem(cp.Minimize(x), [cp.exp(x) <= b])).solve(level)
    assert bool(getattr(found.point, end))
    assert (float(found.proof["inequality"][0]) > 0) == (end == "infeasible")


P = np.array([[2.0, 0.3], [0.3, 1.0]])


@pytest.mark.parametrize("form", [cp.quad_form, lambda y, P: cp.matrix_frac(y, np.linalg.inv(P))])
def test_a_quadratic_form_of_an_expression_with_a_parameter(form, monkeypatch):
    """The projection on sum x = 1 in the metric of P, in closed form; not that of the values at hand when
    the problem was compiled. The twin, without squares, is refused."""
    x, b = cp.Variable(2, name="x"), cp.Parameter(2, name="b")
    problem = cp.Problem(cp.Minimize(form(x - b, P)), [cp.sum(x) == 1])
    layer = hj.ProgramLayer(problem)
    u = np.linalg.solve(P, np.ones(2)) / np.sum(np.linalg.inv(P))
    for value in (np.array([1.0, -2.0]), np.array([0.5, 3.0])):
        want = value - u * (np.sum(value) - 1)
        np.testing.assert_allclose(layer(value)["x"], want, rtol=1e-10, atol=1e-12)
    slope = jax.jacobian(lambda b: layer(b)["x"])(jnp.array([1.0, -2.0]))
    np.testing.assert_allclose(slope, np.eye(2) - u[:, None], atol=1e-10)
    monkeypatch.setattr(reading, "_squares", lambda e: e)
    with pytest.raises(ValueError, match="present values only"):
        hj.ProgramLayer(problem)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_without_rows_the_precision_is_kept(dtype):
    """P x = -q, and the derivative -P^-1; the twin is the other precision."""
    solve = jax.jit(lambda q: QuadraticProgram(jnp.asarray(P, dtype), q).solve().x)
    q = jnp.array([1.0, -2.0], dtype)
    near = 1e-12 if dtype == jnp.float64 else 1e-6
    assert solve(q).dtype == dtype
    np.testing.assert_allclose(solve(q), np.linalg.solve(P, [-1.0, 2.0]), rtol=near)
    np.testing.assert_allclose(jax.jacobian(solve)(q), -np.linalg.inv(P), rtol=near)
