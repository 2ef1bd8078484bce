"""Curvature on the face of a control set: J = c.v + v.Qv/2, Q made so that the face's curvature is known.

v = (a, b, c, d, e) on an l2 ball, a simplex, an l1 ball, a group ball of radius one and a box; Z spans
the face, B is the constraints' own curvature times their multipliers:   Q = Z (s - Z'BZ) Z' - 3 (1 - ZZ')
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.control import (
    Box,
    ByLeaf,
    ByRun,
    ControlProblem,
    GroupBall,
    L1Ball,
    L2Ball,
    Simplex,
)
from hjcontrol.verification.faces import faces_known

SETS = {
    "a": L2Ball(1.0),
    "b": Simplex(1.0),
    "c": L1Ball(1.0),
    "d": GroupBall(1.0),
    "e": Box(-1.0, 1.0),
}
SET = ByRun((ByLeaf(SETS),))
SHAPES = {"a": (3,), "b": (4,), "c": (4,), "d": (2, 2), "e": (2,)}
ZERO = {name: jnp.zeros(shape) for name, shape in SHAPES.items()}
BLOCKS = dict(zip("abcde", np.split(np.arange(17), [3, 7, 11, 15]), strict=True))
V = np.r_[1.0, 0, 0, 0.5, 0.5, 0, 0, 0.6, -0.4, 0, 0, 0.6, 0.8, 0, 0, 1, 0.3]
G = np.r_[-2.0, 0, 0, 1, 1, 2, 3, -1.5, 1.5, 0.3, -0.4, -0.72, -0.96, 0.1, -0.2, -2, 0]
Z = np.zeros((17, 6))
Z[1, 0] = Z[2, 1] = 1
Z[[3, 4], 2] = np.sqrt(0.5) * np.r_[1, -1]
Z[[7, 8], 3] = np.sqrt(0.5)
Z[[11, 12], 4] = -0.8, 0.6
Z[16, 5] = 1
B = np.zeros((17, 17))
B[:3, :3] = 2 * np.diag([0, 1, 1])  # mu / |v| on the sphere, off the radius
B[11:13, 11:13] = 1.2 * np.outer(Z[11:13, 4], Z[11:13, 4])
OWNER = "aabcde"  # of each column of Z


def quadratic(curvatures):
    shift = Z @ (np.diag(curvatures) - Z.T @ B @ Z) @ Z.T
    return shift - 3 * (np.eye(17) - Z @ Z.T)


def flat(theta):
    return jnp.concatenate([jnp.ravel(theta[name]) for name in "abcde"])


def step(x, theta):
    return x + flat(theta)


def problem(Q, g=G):
    return ControlProblem(
        [(step, ZERO)],
        jnp.zeros((1, 17)),
        {"Q": jnp.asarray(Q)[None], "c": jnp.asarray(g - Q @ V)[None]},
        terminal=terminal,
        control_set=SET,
    )


def terminal(x, y):
    return y["c"] @ x + 0.5 * x @ y["Q"] @ x


def table(Q, g=G):
    at = {name: jnp.asarray(V[i].reshape(SHAPES[name]))[None] for name, i in BLOCKS.items()}
    found = hj.verify(problem(Q, g), (at,), optimality=True).optimality
    assert found is not None
    return found


@pytest.fixture(scope="module")
def near():
    """Many points of the set, near V."""
    moved = V + 1e-3 * np.random.default_rng(0).normal(size=(20000, 17))
    split = {n: jnp.asarray(moved[:, i].reshape(-1, *SHAPES[n])) for n, i in BLOCKS.items()}
    return np.asarray(jax.jit(lambda w: jax.vmap(flat)(SET.project((w,))[0]))(split))


def lowest(points, Q, g=G):
    """The least of J - J(V), all figures kept."""
    d = points - V
    return np.min(d @ g + 0.5 * np.einsum("ki,ij,kj->k", d, Q, d))


def test_a_minimum_on_every_face_whose_hessian_is_indefinite(near):
    Q = quadratic([0.5, 0.7, 0.9, 1.1, 1.3, 1.5])
    assert np.linalg.eigvalsh(Q)[0] < -2.9
    found = table(Q)
    assert found.verdict == "strict minimum"
    np.testing.assert_allclose(found["curvature of J"].value, 0.5, rtol=1e-9)
    np.testing.assert_allclose(found.legendre, 0.0, atol=1e-12)  # H is linear in v: B alone
    assert lowest(near, Q) > -1e-12


@pytest.mark.parametrize("column", range(1, 6))
def test_a_saddle_of_one_face_is_violated(near, column):
    """Stationary on each; on one face J falls at second order, which first-order rows cannot see."""
    curvatures = np.full(6, 0.8)
    curvatures[column] = -0.6
    found = table(quadratic(curvatures))
    assert [c.name for c in found.violated] == ["curvature of J"], OWNER[column]
    np.testing.assert_allclose(found["curvature of J"].value, -0.6, rtol=1e-9)
    alone = near.copy()
    others = np.concatenate([i for n, i in BLOCKS.items() if n != OWNER[column]])
    alone[:, others] = V[others]
    assert lowest(alone, quadratic(curvatures)) < -1e-9


def test_constraints_met_without_a_multiplier():
    """Two on the simplex, the product of their weights in J: a minimum where both may only grow. One:
    half a space, of which a quadratic form knows no half."""
    Q = quadratic(np.full(6, 0.8))
    Q[5:7, :] = Q[:, 5:7] = 0
    Q[5, 6] = Q[6, 5] = 4.0
    both = table(Q, np.r_[G[:5], 1, 1, G[7:]])
    assert both.violated == ()
    assert both["curvature of J"].verdict == "no"
    assert both.verdict == "stationary"
    Q[5, 6] = Q[6, 5] = 0.0
    Q[5, 5] = -6.0
    one = table(Q, np.r_[G[:5], 1, 3, G[7:]])
    assert [c.name for c in one.violated] == ["curvature of J"]


def test_a_set_of_the_users_own_has_no_known_face():
    class Own(hj.control.AbstractControlSet):
        def nearest(self, v):
            return v / jnp.linalg.norm(v)

    stage = [(lambda x, theta: x + theta, jnp.ones(2))]
    ask = lambda of: faces_known(
        ControlProblem(stage, jnp.zeros((1, 2)), terminal=jnp.sum, control_set=of)
    )
    assert ask(L2Ball(1.0))
    assert not ask(Own())
    assert not ask(ByRun((Own(),)))
