"""A collocation mesh that refines itself: its error against closed forms and a tight diffrax."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

import hjcontrol as hj
from hjcontrol.networks import Flow
from hjcontrol.solvers import Direct, collocation
from hjcontrol.solvers.mesh_refinement import errors, resampled

FAST = np.array([[0.0, 9.0], [-9.0, 0.0]])
KEY = jax.random.key(0)


def turning(pieces=3, **numerics):
    """A rotation, fast in the first of its pieces: there is 1 far beyond what two elements bear."""

    def drift(x, u):
        fast = jnp.asarray(FAST) * jax.nn.sigmoid(40 * (0.5 - x[2]))
        turned = fast @ x[:2] + u
        return jnp.append(turned, 1.0)  # the third coordinate is time

    return hj.ControlProblem(
        Flow.pieces((drift, jnp.zeros(2)), 1.5, pieces, **numerics),
        jnp.array([[1.0, 0.0, 0.0]]),
        terminal=lambda x: jnp.sum((x[:2] - 0.5) ** 2),
        running=hj.control.Ridge(0.1),
    )


def rollout(problem, weights):
    """The states by diffrax alone, at 1e-12, piece after piece."""
    x, found = problem.inputs[0], []
    for stage, theta in zip(problem.chain, problem.chain.unstack(weights), strict=True):
        ends = jnp.asarray(stage.t0, float), jnp.asarray(stage.t1, float)
        x = piece(stage.drift, *ends, x, theta)
        found.append(np.asarray(x))
    return found


@eqx.filter_jit
def piece(drift, t0, t1, x, theta):
    field = lambda t, y, args: drift.step(y, args)
    control = diffrax.PIDController(rtol=1e-12, atol=1e-12)
    return diffrax.diffeqsolve(
        diffrax.ODETerm(field), diffrax.Dopri8(), t0, t1, None, x, theta,
        stepsize_controller=control, max_steps=10_000,
    ).ys[-1]  # fmt: skip


def test_the_estimate_is_the_error_in_closed_form():
    """A linear flow: the exact end of a piece is expm(A h) x."""
    problem = hj.ControlProblem(
        Flow.pieces(lambda x: jnp.asarray(FAST) @ x, 1.0, 2),
        jnp.array([[1.0, 0.0]]),
        terminal=lambda x: jnp.sum(x**2),
    )
    weights = problem.init(KEY)
    x = [np.array([[1.0, 0.0]]), np.array([[0.3, -0.7]]), np.array([[-0.2, 0.4]])]
    states = hj.control.Trajectory(
        (jnp.stack([jnp.asarray(a) for a in x[:2]], 1),), jnp.asarray(x[2])
    )
    found, size = errors(problem, states, weights)
    ends = [expm(FAST / 2) @ a[0] for a in x[:2]]
    wanted = [np.abs(end - a[0]).max() for end, a in zip(ends, x[1:], strict=True)]
    np.testing.assert_allclose(found, wanted, atol=1e-9)
    assert size == 1.0


def test_a_mesh_is_refined_where_it_misses_and_nowhere_else():
    problem = turning(dt0=0.01, solver=diffrax.Tsit5())
    rough = Direct("legendre", degree=2, elements=1)
    fine = Direct("legendre", degree=2, elements=1, mesh_tol=1e-6)
    before, after = (hj.solve(problem, s, key=KEY) for s in (rough, fine))
    assert before.result == hj.RESULTS.too_coarse
    assert after.result == hj.RESULTS.successful, after.stats
    meshes = after.stats["path"]
    assert meshes[0]["elements"] == 3
    assert meshes[-1]["error"] <= 1e-6 * 1.5 < meshes[0]["error"]
    assert meshes[0]["objective"] != meshes[-1]["objective"]
    # What it says of its objective, against diffrax at the weights that it found.
    end = rollout(problem, after.weights)[-1]
    ridge = 0.05 * sum(float(jnp.sum(a**2)) for a in jax.tree.leaves(after.weights))
    exact = float(np.sum((end[:2] - 0.5) ** 2)) + ridge
    assert abs(meshes[-1]["objective"] - exact) < 1e-5
    first = rollout(problem, before.weights)[-1]
    ridge = 0.05 * sum(float(jnp.sum(a**2)) for a in jax.tree.leaves(before.weights))
    assert abs(meshes[0]["objective"] - float(np.sum((first[:2] - 0.5) ** 2)) - ridge) > 1e-2
    # As many elements, or some more, in equal parts are not enough: they stand where it turns.
    equal = -(-int(meshes[-1]["elements"]) // 3)
    same = Direct("legendre", degree=2, elements=equal, mesh_tol=1e-6, rounds=0)
    even = hj.solve(problem, same, key=KEY)
    assert even.result == hj.RESULTS.too_coarse


def test_rounds_that_do_not_suffice_are_not_called_successful():
    found = hj.solve(
        turning(), Direct("radau", degree=2, elements=1, mesh_tol=1e-9, rounds=1), key=KEY
    )
    assert found.result == hj.RESULTS.too_coarse
    assert "piece 0 misses diffrax's end by" in found.stats["message"]
    assert len(found.stats["path"]) == 2


@pytest.mark.parametrize("scheme", ["legendre", "radau"])
def test_a_polynomial_is_resampled_exactly(scheme):
    """States on a cubic of two elements of degree 3 are those of the cubic on any other mesh."""
    cubic = lambda t: np.stack([t**3 - t, 2 * t**2 + 1], -1)
    old, new = (scheme, 3, 2), (scheme, 3, 5)
    at = lambda s: cubic(collocation.times(s)).ravel()
    found = resampled(cubic(np.zeros(1)).ravel(), at(old), 1, old, new)
    np.testing.assert_allclose(found, at(new), atol=1e-12)
    quintic = lambda s: (collocation.times(s)[:, None] ** 5 * [1.0, 1.0]).ravel()
    twin = resampled(np.zeros(2), quintic(old), 1, old, new)
    assert np.abs(twin - quintic(new)).max() > 1e-4


def test_what_has_no_mesh_is_refused():
    with pytest.raises(ValueError, match="`mesh_tol` must be positive, and is for flows"):
        Direct(mesh_tol=1e-6)
    with pytest.raises(ValueError, match="`mesh_tol`"):
        Direct("radau", mesh_tol=-1.0)
