"""Control sets: projections against a cone solver, normal cones, and which set goes to which weight."""

import cvxpy as cp
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol.control import (
    Binary,
    Box,
    ByLeaf,
    ByRun,
    ControlProblem,
    Free,
    GroupBall,
    L1Ball,
    L2Ball,
    Nonnegative,
    Simplex,
    Ternary,
)
from tests.agreement import assert_agree, disagreement

RNG = np.random.default_rng(5)
V = RNG.normal(size=(3, 2, 4))  # three stages, a 2 x 4 leaf each
SETS = {
    "box": (Box(-0.5, 0.7), lambda v: [v >= -0.5, v <= 0.7]),
    "nonnegative": (Nonnegative(), lambda v: [v >= 0]),
    "l2": (L2Ball(1.3), lambda v: [cp.norm(cp.vec(v, order="C")) <= 1.3]),
    "l1": (L1Ball(1.7), lambda v: [cp.norm1(cp.vec(v, order="C")) <= 1.7]),
    "simplex": (Simplex(0.8), lambda v: [v >= 0, cp.sum(v) == 0.8]),
    "group": (GroupBall(1.1), lambda v: [cp.sum(cp.norm(v, axis=1)) <= 1.1]),
}


@pytest.mark.parametrize("name", SETS)
def test_projection_is_the_nearest_point(name):
    of, constraints = SETS[name]
    project = eqx.filter_jit(of.project)
    found = project(({"W": jnp.asarray(V), "b": ()},))[0]["W"]
    for point, ours in zip(V, found, strict=True):
        v = cp.Variable(point.shape)
        cp.Problem(cp.Minimize(cp.sum_squares(v - point)), constraints(v)).solve(cp.CLARABEL)
        assert_agree(ours, v.value, 1e-5)
    again = project(({"W": found, "b": ()},))[0]["W"]
    assert_agree(again, found, 1e-14)
    # The twin: another radius is another set.
    assert disagreement(found, V) > 1e-2


@pytest.mark.parametrize("name", SETS)
def test_what_a_step_leaves_behind_is_normal(name):
    """Complementarity: the multiplier has no component towards any other point of the set."""
    of, _ = SETS[name]
    w, g = (jnp.asarray(RNG.normal(size=V.shape)) for _ in range(2))
    at = eqx.filter_jit(of.project)((w,))
    normal = eqx.filter_jit(of.normal)(at, (g,))[0]
    reached = jax.tree.map(jnp.subtract, at, eqx.filter_jit(of.violation)(at, (g,)))[0]
    others = eqx.filter_jit(of.project)((jnp.asarray(RNG.normal(size=(20, *V.shape[1:]))),))[0]
    towards = jnp.einsum("kij,knij->kn", normal, others[None] - reached[:, None])
    assert float(towards.max()) < 1e-12
    assert float(jnp.einsum("kij,knij->kn", -normal, others[None] - reached[:, None]).max()) > 1e-3


def test_finite_sets_round_and_judge_by_the_linear_model():
    w = (jnp.asarray(V),)
    assert set(np.unique(Ternary().project(w)[0])) == {-1.0, 0.0, 1.0}
    assert set(np.unique(Binary().project(w)[0])) == {-1.0, 1.0}
    at = Binary().project(w)
    assert float(Binary().stationarity(at, jax.tree.map(lambda a: -a, at))) == 0.0
    assert float(Binary().stationarity(at, at)) == 2.0
    assert not Ternary().convex
    assert isinstance(Ternary().relaxed, Box)


def test_sets_by_leaf_and_by_run():
    w = ({"W": jnp.asarray(V), "b": jnp.asarray(V[:, 0])}, jnp.asarray(V))
    found = ByLeaf(W=L1Ball(1.0)).project(w)
    assert_agree(jnp.abs(found[0]["W"]).sum((1, 2)), np.ones(3), 1e-12)
    assert_agree(found[0]["b"], w[0]["b"], 0.0)
    found = ByRun((Free(), Nonnegative())).project(w)
    assert_agree(found[0]["W"], w[0]["W"], 0.0)
    assert float(found[1].min()) == 0.0


def test_a_product_is_of_a_kind_if_its_factors_are():
    kinds = lambda of: (of.convex, of.elementwise, of.smooth)
    assert kinds(ByLeaf(W=Box(-1.0, 1.0), b=Nonnegative())) == (True, True, True)
    assert kinds(ByRun((Free(), ByLeaf(W=L1Ball(1.0))))) == (True, False, True)
    assert kinds(ByLeaf(W=GroupBall(1.0))) == (True, False, False)
    assert kinds(ByRun((Free(), ByLeaf(W=Binary())))) == (False, False, False)


def test_bounds_are_shaped_like_the_weights():
    low = np.linspace(-1.0, -0.1, 4)
    of = ByRun((ByLeaf(W=Box(low, [[0.5], [0.2]])), Nonnegative()))
    w = ({"W": jnp.asarray(V), "b": jnp.asarray(V[:, 0])}, jnp.asarray(V[:1]))
    lower, upper = of.bounds(w)
    assert_agree(lower[0]["W"], np.broadcast_to(low, V.shape), 0.0)
    assert_agree(upper[0]["W"], np.broadcast_to([[0.5], [0.2]], V.shape), 0.0)
    assert_agree(lower[0]["b"], np.full((3, 4), -np.inf), 0.0)
    assert_agree(lower[1], np.zeros((1, 2, 4)), 0.0)
    assert_agree(of.project(w), jax.tree.map(jnp.clip, w, lower, upper), 0.0)
    held, _ = of.active(w, jax.tree.map(jnp.ones_like, w), jnp.asarray(0.0))
    assert_agree(held, jax.tree.map(lambda t, a: t <= a, w, lower), 0.0)


def test_sets_that_do_not_fit_the_weights_are_refused():
    start = {"W": jnp.zeros((2, 4)), "b": jnp.zeros(4)}
    stage = lambda x, th: x + th["b"] * jnp.sum(th["W"])
    ask = lambda of: ControlProblem(
        [(stage, start)] * 3, jnp.zeros((1, 4)), terminal=jnp.sum, control_set=of
    )
    ask(ByRun((ByLeaf(W=Box(np.zeros((2, 1)), np.ones(4))),)))
    for of, words in (
        (
            ByLeaf(W=Box(np.zeros(3), 1.0)),
            r"`lower`.*leaf \['W'\] of shape \(2, 4\); found.*\(3,\)",
        ),
        (Box(0.0, np.ones((2, 4))), r"`upper`.*leaf \['b'\] of shape \(4,\); found.*\(2, 4\)"),
        (ByLeaf(w=Nonnegative()), r"no leaf.*'w'; there are W, b"),
        (ByRun((Free(), Free())), "one set for every run.*1; found 2"),
    ):
        with pytest.raises(ValueError, match=words):
            ask(of)


def test_bad_sets_are_refused():
    for wrong in (
        lambda: L1Ball(0.0),
        lambda: Simplex(-1.0),
        lambda: Box(1.0, -1.0),
        lambda: Box([0, 2], 1),
    ):
        with pytest.raises(ValueError, match="found"):
            wrong()
    with pytest.raises(ValueError, match=r"[cC]ontrol ?[sS]et"):
        ByLeaf(W=3)
    with pytest.raises(ValueError, match=r"[cC]ontrol ?[sS]et"):
        ByRun((3,))
    with pytest.raises(ValueError, match="broadcast against each other"):
        Box(np.zeros(4), np.ones(3))
    with pytest.raises(ValueError, match="not a set of bounds"):
        L2Ball(1.0).bounds((jnp.zeros((1, 2)),))
