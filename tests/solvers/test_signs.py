"""The table of docs/signs.md, row by row, on one linear-quadratic problem by three modelling layers.

minimise  sum_k |x_k|^2/2 + |u_k|^2/2 + |x_K|^2   s.t.  x_{k+1} = A x_k + B u_k,  x_0 = x_bar
"""

import casadi as ca
import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest

K, N, M = 4, 2, 1
A = np.array([[1.0, 0.3], [-0.2, 0.9]])
B = np.array([[0.1], [0.5]])
START = np.array([1.0, -0.7])


def costates(controls):
    """p_0 .. p_K by automatic differentiation: shifts added to the states."""

    def cost(shifts):
        x, total = jnp.asarray(START) + shifts[0], 0.0
        for k in range(K):
            total = total + 0.5 * x @ x + 0.5 * jnp.sum(controls[k] ** 2)
            x = A @ x + B @ controls[k] + shifts[k + 1]
        return total + x @ x

    return np.asarray(jax.grad(cost)(jnp.zeros((K + 1, N))))


def total(x, u, squares):
    return sum(0.5 * squares(x[k]) + 0.5 * squares(u[k]) for k in range(K)) + squares(x[K])


def pairs(x, u, turned):
    """(left, right) of every equation: the start, then the dynamics; `turned` swaps the sides."""
    house = [(cp.Constant(START), x[0]), *[(A @ x[k] + B @ u[k], x[k + 1]) for k in range(K)]]
    return [(right, left) for left, right in house] if turned else house


def by_cvxpy(turned, sign=1):
    x, u = [cp.Variable(N) for _ in range(K + 1)], [cp.Variable(M) for _ in range(K)]
    equations = [left == right for left, right in pairs(x, u, turned)]
    cost = total(x, u, cp.sum_squares)
    objective = cp.Minimize(cost) if sign > 0 else cp.Maximize(-cost)
    tight = {"tol_gap_abs": 1e-13, "tol_gap_rel": 1e-13, "tol_feas": 1e-13}
    cp.Problem(objective, equations).solve(solver="CLARABEL", **tight)
    return np.stack([v.value for v in u]), np.stack([e.dual_value for e in equations])


def by_opti(turned):
    opti = ca.Opti()
    x, u = [opti.variable(N) for _ in range(K + 1)], [opti.variable(M) for _ in range(K)]
    opti.minimize(total(x, u, ca.sumsqr))
    equations = [left == right for left, right in pairs_ca(x, u, turned)]
    opti.subject_to(equations)
    opti.solver("ipopt", {"ipopt.print_level": 0, "print_time": False, "ipopt.tol": 1e-12})
    found = opti.solve()
    multipliers = np.stack([np.ravel(found.value(opti.dual(e))) for e in equations])
    return np.stack([np.atleast_1d(found.value(v)) for v in u]), multipliers


def pairs_ca(x, u, turned):
    a, b = ca.DM(A), ca.DM(B)
    house = [(ca.DM(START), x[0])]
    house += [(ca.mtimes(a, x[k]) + ca.mtimes(b, u[k]), x[k + 1]) for k in range(K)]
    return [(right, left) for left, right in house] if turned else house


def by_nlpsol(turned):
    x, u = [ca.MX.sym(f"x{k}", N) for k in range(K + 1)], [ca.MX.sym(f"u{k}", M) for k in range(K)]
    g = ca.vertcat(*[left - right for left, right in pairs_ca(x, u, turned)])
    nlp = {"x": ca.vertcat(*x, *u), "f": total(x, u, ca.sumsqr), "g": g}
    options = {"ipopt.print_level": 0, "print_time": False, "ipopt.tol": 1e-12}
    found = ca.nlpsol("solver", "ipopt", nlp, options)(lbg=0, ubg=0)
    controls = np.array(found["x"])[(K + 1) * N :].reshape(K, M)
    return controls, np.array(found["lam_g"]).reshape(K + 1, N)


TABLE = {
    "cvxpy": (by_cvxpy, 1e-6),
    "cvxpy, Maximize": (lambda turned: by_cvxpy(turned, sign=-1), 1e-6),
    "Opti": (by_opti, 1e-12),
    "nlpsol": (by_nlpsol, 1e-12),
}


@pytest.mark.parametrize("turned", [False, True], ids=["F == x_next", "x_next == F"])
@pytest.mark.parametrize("layer", TABLE)
def test_signs_of_multipliers(layer, turned):
    solve, tol = TABLE[layer]
    controls, multipliers = solve(turned)
    p = costates(jnp.asarray(controls))
    expected = np.where(turned, -p, p)
    if layer == "Opti":
        expected[0] = -p[0]  # Opti brings a constant or parametric side to the right itself
    np.testing.assert_allclose(multipliers, expected, atol=tol)
    assert np.abs(multipliers + expected).max() > 1.0  # the other sign would be seen


def test_a_numpy_array_on_the_left_is_turned_by_python():
    """`array == variable` becomes `variable == array` before cvxpy sees it: the sign turns with it."""
    x = cp.Variable(N)
    cost = cp.Minimize(cp.sum_squares(x))
    signs = []
    for left in (cp.Constant(START), START):
        equation = left == x
        cp.Problem(cost, [equation]).solve(solver="CLARABEL")
        signs.append(equation.dual_value)
    np.testing.assert_allclose(signs[0], 2 * START, atol=1e-6)
    np.testing.assert_allclose(signs[1], -2 * START, atol=1e-6)
