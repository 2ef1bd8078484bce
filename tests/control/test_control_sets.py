"""Control sets: projections against a cone solver, normal cones, and which set goes to which weight."""

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol.control import (
    Binary,
    Box,
    ByLeaf,
    ByRun,
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
    found = of.project(({"W": jnp.asarray(V), "b": ()},))[0]["W"]
    for point, ours in zip(V, found, strict=True):
        v = cp.Variable(point.shape)
        cp.Problem(cp.Minimize(cp.sum_squares(v - point)), constraints(v)).solve(cp.CLARABEL)
        assert_agree(ours, v.value, 1e-5)
    again = of.project(({"W": found},))[0]["W"]
    assert_agree(again, found, 1e-14)
    # The twin: another radius is another set.
    assert disagreement(found, V) > 1e-2


@pytest.mark.parametrize("name", SETS)
def test_what_a_step_leaves_behind_is_normal(name):
    """Complementarity: the multiplier has no component towards any other point of the set."""
    of, _ = SETS[name]
    w, g = (jnp.asarray(RNG.normal(size=V.shape)) for _ in range(2))
    at = of.project((w,))
    normal = of.normal(at, (g,))[0]
    reached = jax.tree.map(jnp.subtract, at, of.violation(at, (g,)))[0]
    others = of.project((jnp.asarray(RNG.normal(size=(20, *V.shape[1:]))),))[0]
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


def test_bad_sets_are_refused():
    for wrong in (lambda: L1Ball(0.0), lambda: Simplex(-1.0), lambda: Box(1.0, -1.0)):
        with pytest.raises(ValueError, match="found"):
            wrong()
    with pytest.raises(ValueError, match="control set"):
        ByLeaf(W=3)
    with pytest.raises(ValueError, match="not a set of bounds"):
        L2Ball(1.0).bounds((jnp.zeros((1, 2)),))
