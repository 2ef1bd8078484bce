"""Implicit rules of loops that have converged: what is left of a gap is the rule's fault."""

import jax
import jax.numpy as jnp
import pytest

import hjcontrol as hj

W = 0.3 * jnp.asarray([[0.4, -1.1, 0.2], [0.7, 0.3, -0.6], [-0.2, 0.9, 0.5]])
B = jnp.asarray([0.3, -0.8, 1.2])


def body(w, b, z):
    return jnp.tanh(w @ z + b)


def iterated(tol):
    def solve(w, b):
        going = lambda c: jnp.max(jnp.abs(c[1] - c[0])) > tol
        start = body(w, b, 0 * b), 0 * b
        return jax.lax.while_loop(going, lambda c: (body(w, b, c[0]), c[0]), start)[0]

    return solve


def newton(tol):
    def solve(w, b):
        left = lambda z: z - body(w, b, z)
        step = lambda z: z - jnp.linalg.solve(jax.jacfwd(left)(z), left(z))
        return jax.lax.while_loop(lambda z: jnp.max(jnp.abs(left(z))) > tol, step, 0 * b)

    return solve


def adjoint_by(kind, w, b, z, p):
    """The solution of `y = p + J^T y`."""
    _, pull = jax.vjp(lambda z: body(w, b, z), z)
    if kind == "matrix":
        push = jax.jacfwd(lambda z: body(w, b, z))(z)
        return jnp.linalg.solve((jnp.eye(len(z), dtype=z.dtype) - push).T, p)
    turn = lambda y: p + pull(y)[0]
    if kind == "short":
        return jax.lax.fori_loop(0, 3, lambda _, y: turn(y), p)
    going = lambda c: jnp.max(jnp.abs(c[1] - c[0])) > 1e-4
    return jax.lax.while_loop(going, lambda c: (turn(c[0]), c[0]), (turn(p), p))[0]


def implicit(solve, factor=1.0, kind="matrix"):
    found = jax.custom_vjp(solve)

    def fwd(w, b):
        z = found(w, b)
        return z, (w, b, z)

    def bwd(kept, p):
        w, b, z = kept
        _, pull = jax.vjp(lambda w, b: body(w, b, z), w, b)
        return tuple(factor * g for g in pull(adjoint_by(kind, w, b, z, p)))

    found.defvjp(fwd, bwd)
    return lambda w, b: jnp.sum(jnp.arange(1, 4, dtype=w.dtype) * found(w, b) ** 2)


def least(dtype=None):
    return 4 * float(jnp.finfo(dtype or W.dtype).eps)


@pytest.mark.parametrize("kind", ["matrix", "loop"])
@pytest.mark.parametrize("solve", [iterated, newton])
def test_a_converged_loop_hides_no_fault(solve, kind):
    right = hj.verify(implicit(solve(least()), 1.0, kind), W, B)
    assert right, str(right)
    wrong = hj.verify(implicit(solve(least()), 1.01, kind), W, B)
    assert wrong.verdict == "refuted", str(wrong)


@pytest.mark.any_precision
def test_a_right_rule_in_float32_is_no_fault():
    w, b = W.astype(jnp.float32), B.astype(jnp.float32)
    right = hj.verify(implicit(iterated(1e-3)), w, b)
    assert right, str(right)
    wrong = hj.verify(implicit(iterated(1e-3), 1.01), w, b)
    assert wrong.verdict == "refuted", str(wrong)


@pytest.mark.parametrize("tol", [None, 1e-4])
def test_an_adjoint_solve_that_is_cut_short_is_told_as_one(tol):
    """Four terms of a Neumann series: not the derivative, and the number says how far from it."""
    found = hj.verify(implicit(iterated(tol or least()), 1.0, "short"), W, B)
    assert not found
    assert found.verdict == "consistent", str(found)
    assert "of fixed length, is cut short" in str(found)
    wrong = hj.verify(implicit(iterated(tol or least()), 1.1, "short"), W, B)
    assert wrong.verdict == "refuted", str(wrong)


def test_a_loop_that_does_nothing_more_is_no_fixed_point():
    """Euler's steps to time 1, and the rule of the flow itself: moved, the end stays where it is put."""

    @jax.custom_vjp
    def flow(x):
        def step(c):
            t, y = c
            h = jnp.minimum(1e-3, 1 - t)
            return t + h, y - h * y

        return jax.lax.while_loop(lambda c: c[0] < 1, step, (0.0 * x[0], x))[1]

    flow.defvjp(lambda x: (flow(x), ()), lambda _, p: (jnp.exp(-1.0) * p,))
    found = hj.verify(lambda x: jnp.sum(flow(x)), B)
    assert not found
    assert found.verdict == "consistent", str(found)
    assert "a smaller fault cannot be seen" in str(found)
