r"""The user's own program as a layer: DPP, optimum, derivative, certificate, failure as a value."""

import cvxpy as cp
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol._ground.results import RESULTS
from hjcontrol.layers import ProgramLayer, Sparsemax, certify
from tests.agreement import assert_agree


@pytest.fixture(scope="module")
def lasso():
    x = cp.Variable(3, name="x")
    c, r = cp.Parameter(3, name="c"), cp.Parameter(nonneg=True, name="r")
    cost = cp.sum_squares(x - c) + r * cp.norm1(x) + 2
    return ProgramLayer(cp.Problem(cp.Minimize(cost), [cp.sum(x) == 1, x >= -0.2]))


C, R = jnp.array([0.3, -0.5, 0.9]), jnp.array(0.4)


def test_optimum_certificate_and_derivative(lasso):
    problem = lasso.as_cvxpy(C, R)
    problem.solve(solver="CLARABEL")
    answer = eqx.filter_jit(lasso)(C, R)
    assert_agree(answer["x"], problem.variables()[0].value, 1e-7)
    assert lasso.certify(C, R).verdict == "optimal"
    f = lambda c, r: lasso.solve(c, r).variables["x"]
    for argnums in (0, 1):
        reverse, forward = (jax.jit(d(f, argnums))(C, R) for d in (jax.jacrev, jax.jacfwd))
        assert_agree(reverse, forward, 1e-13)
        h = 1e-5
        bumps = np.eye(3) if argnums == 0 else np.ones((1,))
        moved = lambda e: (C + e, R) if argnums == 0 else (C, R + e)
        pairs = [(f(*moved(h * e)), f(*moved(-h * e))) for e in bumps]
        differences = np.stack([(a - b) / (2 * h) for a, b in pairs], axis=-1)
        assert_agree(reverse.reshape(differences.shape), differences, 1e-8)
    batched = jax.jit(jax.vmap(f, (0, None)))(jnp.stack([C, C[::-1]]), R)
    assert_agree(batched[0], answer["x"], 1e-12)


def test_a_layer_of_ours_stated_by_the_user():
    p, z = cp.Variable(4, name="p"), cp.Parameter(4, name="z")
    projection = cp.Problem(cp.Minimize(cp.sum_squares(p - z)), [cp.sum(p) == 1, p >= 0])
    layer, ours = ProgramLayer(projection), Sparsemax(1.0)
    Z = jnp.asarray(np.random.default_rng(0).standard_normal((5, 4)))
    f = lambda z: layer.solve(z).variables["p"]
    assert_agree(jax.jit(jax.vmap(f))(Z), jax.vmap(ours)(Z), 1e-10)
    g = jnp.arange(4.0)
    pulled = lambda f: jax.jit(jax.vmap(lambda z: jax.vjp(f, z)[1](g)[0]))
    assert_agree(pulled(f)(Z), pulled(ours)(Z), 1e-8)


def test_a_linear_programs_vertex_and_its_sensitivity():
    x, c, b = cp.Variable(2, name="x"), cp.Parameter(2), cp.Parameter()
    layer = ProgramLayer(cp.Problem(cp.Minimize(c @ x), [cp.sum(x) == b, x >= 0]))
    c0, b0 = jnp.array([1.0, 2.0]), jnp.array(1.5)
    f = lambda c, b: layer.solve(c, b).variables["x"]
    assert_agree(f(c0, b0), jnp.array([1.5, 0.0]), 1e-10)
    by_cost, by_bound = jax.jacrev(f, (0, 1))(c0, b0)
    assert_agree(by_cost, jnp.zeros((2, 2)), 1e-9)
    assert_agree(by_bound, jnp.array([1.0, 0.0]), 1e-9)


def test_failure_is_a_value():
    x, b, c = cp.Variable(2, name="x"), cp.Parameter(name="b"), cp.Parameter(2, name="c")
    between = ProgramLayer(cp.Problem(cp.Minimize(cp.sum(x)), [x >= b, x <= 1]))
    assert between.solve(jnp.array(0.0)).result == RESULTS.successful
    empty = between.solve(jnp.array(2.0))
    assert empty.result == RESULTS.infeasible
    assert certify(between.program(jnp.array(2.0)), jnp.ones(2)).verdict == "infeasible"
    with pytest.raises(Exception, match="No point that meets the constraints was found"):
        between(jnp.array(2.0))
    below = ProgramLayer(cp.Problem(cp.Minimize(c @ x), [x <= 1]))
    assert below.solve(-jnp.ones(2)).result == RESULTS.successful
    assert below.solve(jnp.ones(2)).result == RESULTS.unbounded


@pytest.mark.usefixtures("unchecked")
def test_what_is_not_a_layer_is_refused_with_the_place(lasso):
    x, c, d = cp.Variable(3, name="x"), cp.Parameter(3, name="c"), cp.Parameter(3, name="d")
    product = cp.Problem(cp.Minimize(cp.sum_squares(x - cp.multiply(c, d))))
    with pytest.raises(ValueError, match=r"not DPP; the sub-expression at fault is `c \* d`"):
        ProgramLayer(product)
    with pytest.raises(ValueError, match="no linear or quadratic form"):
        ProgramLayer(cp.Problem(cp.Minimize(-cp.sum(cp.entr(x)) + c @ x)))
    with pytest.raises(ValueError, match="not DCP"):
        ProgramLayer(cp.Problem(cp.Maximize(cp.sum_squares(x))))
    y = cp.Variable(3, name="y", nonneg=True)
    with pytest.raises(ValueError, match="State it as a constraint"):
        ProgramLayer(cp.Problem(cp.Minimize(cp.sum_squares(y - c))))
    with pytest.raises(ValueError, match=r"parameter c has shape \(3,\); found \(2,\)"):
        lasso.solve(np.ones(2), 1.0)
    with pytest.raises(ValueError, match="2 parameters are needed; found 1"):
        lasso.solve(np.ones(3))


def test_another_programs_point_is_not_certified(lasso):
    wrong = lasso.solve(C + 0.1, R).point
    program = lasso.program(C + jnp.array([0.1, 0.0, 0.0]), R)
    dual = {"equality": wrong.nu, "inequality": wrong.lam}
    assert certify(program, wrong.x, dual).verdict != "optimal"
