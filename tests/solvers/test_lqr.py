"""Linear-quadratic sweeps: against one dense KKT system, and parallel against sequential."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol.solvers.riccati import associative, lqr
from tests.oracles import lqr as oracle

SIZES = [(16, 2, 1), (33, 5, 3)]


def stated(stages, Q, q):
    stages = lqr.Stage(**{name: jnp.asarray(a) for name, a in stages.items()})
    return lqr.LQR(stages, jnp.asarray(Q), jnp.asarray(q))


@jax.jit
def in_sequence(problem, start):
    policy = lqr.sequential(problem)
    return policy, *lqr.simulate(problem, policy, start)


@jax.jit
def in_parallel(problem, start):
    policy = associative.parallel(problem)
    return policy, *associative.simulate(problem, policy, start)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_sweep_solves_the_dense_equations(size):
    stages, Q, q, start = oracle.draw(0, *size)
    states, controls, costates = oracle.solve(stages, Q, q, start)
    policy, x, u = in_sequence(stated(stages, Q, q), jnp.asarray(start))
    np.testing.assert_allclose(x, states, atol=1e-11)
    np.testing.assert_allclose(u, controls, atol=1e-11)
    slopes = np.einsum("kij,kj->ki", policy.P, states) + policy.p
    np.testing.assert_allclose(slopes, costates, atol=1e-11)
    assert bool(policy.finite())
    # The twin: without the affine term the same sweep answers another problem.
    stages = stages | {"c": np.zeros_like(stages["c"])}
    _, _, u = in_sequence(stated(stages, Q, q), jnp.asarray(start))
    assert np.abs(u - controls).max() > 1e-2


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_parallel_equals_sequential(size):
    *drawn, start = oracle.draw(1, *size)
    problem, start = stated(*drawn), jnp.asarray(start)
    one, other = in_sequence(problem, start), in_parallel(problem, start)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_the_parallel_span_grows_with_the_logarithm_of_depth(monkeypatch, unchecked):
    """Levels are counted as JAX traces them: a combination upwards and a step downwards, once a level."""
    levels = [0]

    def counted(applied):
        def count(*arguments):
            levels[0] += 1
            return applied(*arguments)

        return count

    for name in ("combine", "ahead"):
        monkeypatch.setattr(associative, name, counted(getattr(associative, name)))
    found = []
    for depth in (16, 256, 4096):
        shapes = [(2, 2), (2, 1), (2,), (2, 2), (2, 1), (1, 1), (2,), (1,)]
        stages = lqr.Stage(*(jax.ShapeDtypeStruct((depth, *s), jnp.float64) for s in shapes))
        ends = [jax.ShapeDtypeStruct(s, jnp.float64) for s in ((2, 2), (2,))]
        levels[0] = 0
        jax.eval_shape(lambda s, Q, q: associative.parallel(lqr.LQR(s, Q, q)), stages, *ends)
        found.append(levels[0])
    assert found[2] - found[1] == found[1] - found[0] == 8  # both a doubling, 16 times the depth
    assert found[2] <= 2 * np.log2(4096) + 1


def test_no_minimum_is_said():
    stages, Q, q, start = oracle.draw(0, *SIZES[0])
    turned = stages | {"R": -stages["R"]}
    policy, _, _ = in_sequence(stated(turned, -0.0 * Q, q), jnp.asarray(start))
    assert not bool(policy.finite())


def test_shapes_that_do_not_fit_are_refused(unchecked):
    stages, Q, q, _ = oracle.draw(0, 4, 3, 2)
    turned = stages | {"S": stages["S"].transpose(0, 2, 1)}
    with pytest.raises(ValueError, match=r"`stages.S` must have shape \(4, 3, 2\).*\(4, 2, 3\)"):
        stated(turned, Q, q)
