"""Tutorial programs as layers: stated, answer against Clarabel, gradient against central differences.

python program_layers.py             # the programs: one line each
python program_layers.py entropy     # the entropy layer's gradient against softmax's closed rule
"""

import json
import sys
import time

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np

import hjcontrol as hj
from hjcontrol._ground.results import name_of

jax.config.update("jax_enable_x64", True)
V, P, S = cp.Variable, cp.Parameter, cp.sum_squares
RNG = np.random.default_rng(0)


def draw(*shape):
    return RNG.standard_normal(shape)


def programs():
    """Name, problem, values of its parameters."""
    n, m = 4, 6
    A0, G0, b0 = draw(m, n), draw(m, n), draw(m)
    C3, L3 = draw(3, 3), draw(3, 3)
    x, c, q = lambda **k: V(n, **k), lambda **k: P(n, **k), draw(n)

    def one(build, *values):
        return build(), values

    def with_c(cost, sides=lambda x, c: [], value=None, **attributes):
        def build():
            xv, cv = x(**attributes), c()
            return cp.Problem(cp.Minimize(cost(xv, cv)), sides(xv, cv))

        return one(build, q if value is None else value)

    box = lambda x, c: [x >= -1, x <= 1]
    simplex = lambda x, c: [cp.sum(x) == 1, x >= 0]

    def regression(extra, sides=lambda x: []):
        def build():
            xv, A, b = x(), P((m, n)), P(m)
            return cp.Problem(cp.Minimize(S(A @ xv - b) + extra(xv)), sides(xv))

        return one(build, A0, b0)

    def matrix(cost, sides, value, **attributes):
        def build():
            X, N = V((3, 3), **attributes), P((3, 3), symmetric=True)
            return cp.Problem(cp.Minimize(cost(X, N)), sides(X))

        return one(build, (value + value.T) / 2)

    def logistic():
        xv, A = x(), P((m, n))
        y = np.sign(b0)
        return cp.Problem(cp.Minimize(cp.sum(cp.logistic(-cp.multiply(y, A @ xv))) + 0.1 * S(xv)))

    def portfolio():
        xv, mu, L = x(), P(n), P((n, n))
        return cp.Problem(cp.Maximize(mu @ xv - S(L.T @ xv)), [cp.sum(xv) == 1, xv >= 0])

    def optnet():
        xv, h = x(), P(m)
        return cp.Problem(cp.Minimize(S(xv - q)), [G0 @ xv <= h])

    def polyhedron():
        xv, cv, A = x(), c(), P((m, n))
        return cp.Problem(cp.Minimize(S(xv - cv)), [A @ xv <= 1])

    def control():
        X, U, x0 = V((2, 5)), V((1, 4)), P(2)
        F, B = np.array([[1, 0.1], [0, 1]]), np.array([[0.0], [0.1]])
        sides = [X[:, 0] == x0, cp.abs(U) <= 3]
        sides += [X[:, k + 1] == F @ X[:, k] + B @ U[:, k] for k in range(4)]
        return cp.Problem(cp.Minimize(S(X) + 0.1 * S(U)), sides)

    def robust():
        xv, a = x(), c()
        return cp.Problem(cp.Minimize(S(xv - q)), [a @ xv + 0.3 * cp.norm(xv) <= 0.2])

    def huber():
        xv, A = x(), P((m, n))
        return cp.Problem(cp.Minimize(cp.sum(cp.huber(A @ xv - b0)) + 0.1 * S(xv)))

    def svm():
        w, A = x(), P((m, n))
        y = np.sign(b0)
        return cp.Problem(cp.Minimize(cp.sum(cp.pos(1 - cp.multiply(y, A @ w))) + S(w)))

    def transport(eps):
        T, M = V((3, 3)), P((3, 3))
        cost = cp.sum(cp.multiply(M, T)) - eps * cp.sum(cp.entr(T))
        return cp.Problem(cp.Minimize(cost), [cp.sum(T, 0) == 1 / 3, cp.sum(T, 1) == 1 / 3, T >= 0])

    def power():
        xv, cv = V(3), P(3)
        return cp.Problem(
            cp.Minimize(S(xv - cv)), [cp.constraints.PowCone3D(xv[0], xv[1], xv[2], 0.3)]
        )

    return {
        "linear program": with_c(lambda x, c: c @ x, box),
        "linear program on the simplex": with_c(lambda x, c: c @ x, simplex),
        "quadratic program": with_c(lambda x, c: S(A0 @ x) + c @ x, box),
        "equality quadratic": with_c(lambda x, c: S(x - c), lambda x, c: [cp.sum(x) == 1]),
        "OptNet": one(optnet, b0 + 2),
        "polyhedron": one(polyhedron, 3 * q, A0),
        "relu": with_c(lambda x, c: S(x - c), lambda x, c: [x >= 0]),
        "relu by attribute": with_c(lambda x, c: S(x - c), nonneg=True),
        "sigmoid": with_c(lambda x, c: -c @ x - cp.sum(cp.entr(x) + cp.entr(1 - x))),
        "softmax": with_c(lambda x, c: -c @ x - cp.sum(cp.entr(x)), lambda x, c: [cp.sum(x) == 1]),
        "sparsemax": with_c(lambda x, c: S(x - c), simplex),
        "csoftmax": with_c(
            lambda x, c: -c @ x - cp.sum(cp.entr(x)), lambda x, c: [cp.sum(x) == 1, x <= 0.4]
        ),
        "csparsemax": with_c(lambda x, c: S(x - c), lambda x, c: [*simplex(x, c), x <= 0.4]),
        "two of four": with_c(
            lambda x, c: -c @ x - cp.sum(cp.entr(x) + cp.entr(1 - x)), lambda x, c: [cp.sum(x) == 2]
        ),
        "least squares": regression(lambda x: 0),
        "ridge": regression(lambda x: 0.1 * S(x)),
        "lasso": regression(lambda x: cp.norm1(x)),
        "elastic net": regression(lambda x: 0.5 * cp.norm1(x) + 0.1 * S(x)),
        "nonnegative least squares": regression(lambda x: 0, lambda x: [x >= 0]),
        "group lasso": regression(lambda x: cp.norm(x[:2]) + cp.norm(x[2:])),
        "total variation": with_c(lambda x, c: S(x - c) + 0.3 * cp.tv(x)),
        "isotonic": with_c(lambda x, c: S(x - c), lambda x, c: [cp.diff(x) >= 0]),
        "ball": with_c(lambda x, c: S(x - c), lambda x, c: [cp.norm(x) <= 1]),
        "ellipsoid": with_c(lambda x, c: S(x - c), lambda x, c: [cp.norm(A0 @ x) <= 1]),
        "l1 ball": with_c(lambda x, c: S(x - c), lambda x, c: [cp.norm1(x) <= 1]),
        "robust half-space": one(robust, draw(n)),
        "geometric mean": with_c(
            lambda x, c: c @ x - cp.geo_mean(x), lambda x, c: [x <= 2], np.abs(q) + 0.1
        ),
        "log-sum-exp": with_c(lambda x, c: cp.log_sum_exp(A0 @ x) + S(x - c)),
        "log utility": with_c(
            lambda x, c: -cp.sum(cp.log(x)) - c @ x, lambda x, c: [cp.sum(x) == 1]
        ),
        "relative entropy": with_c(
            lambda x, c: cp.sum(cp.kl_div(x, np.full(n, 0.3))) + c @ x,
            lambda x, c: [cp.sum(x) == 1],
        ),
        "logistic regression": one(logistic, A0),
        "support vectors": one(svm, A0),
        "Huber regression": one(huber, A0),
        "portfolio": one(portfolio, q, 0.5 * draw(n, n)),
        "control with bounds": one(control, np.array([1.0, -0.5])),
        "entropic transport": one(lambda: transport(0.1), np.abs(C3)),
        "semidefinite projection": matrix(
            lambda X, N: S(X - N), lambda X: [X >> 0], L3, symmetric=True
        ),
        "lowest eigenvector": matrix(
            lambda X, N: cp.trace(N @ X), lambda X: [cp.trace(X) == 1], C3, PSD=True
        ),
        "maximum determinant": matrix(
            lambda X, N: cp.trace(N @ X) - cp.log_det(X),
            lambda X: [],
            C3 @ C3.T + np.eye(3),
            PSD=True,
        ),
        "power cone": one(power, np.array([1.0, 1.0, 2.0])),
    }


def apart(problem, y):
    """The distance to Clarabel's answer at each tolerance that it reaches: where the cone is curved its
    answer at 1e-9 has five digits, and at 1e-13 it does not always end."""
    for tol in (1e-9, 1e-10, 1e-11, 1e-12, 1e-13):
        try:
            problem.solve(solver="CLARABEL", tol_gap_abs=tol, tol_gap_rel=tol, tol_feas=tol)
        except cp.error.SolverError:
            continue
        if problem.status in ("optimal", "optimal_inaccurate"):
            theirs = [np.ravel(np.asarray(v.value)) for v in problem.variables()]
            yield float(np.max(np.abs(y - np.concatenate(theirs))))


def check(problem, values):
    layer = hj.ProgramLayer(problem, engine="clarabel")
    first, *rest = (jnp.asarray(v) for v in values)

    @jax.jit
    def everything(v):
        def stack(v):
            found = layer.solve(v, *rest)
            return jnp.concatenate([jnp.ravel(u) for u in found.variables.values()]), found

        y, pull, found = jax.vjp(stack, v, has_aux=True)
        g = jnp.cos(jnp.arange(y.size))
        judged = hj.certify(layer.program(v, *rest), found.point.x, found.point)
        return y, pull(g)[0], found, judged, g

    y, pulled, found, judged, g = everything(first)
    d = np.random.default_rng(1).standard_normal(first.shape)
    d = jnp.asarray(d + d.T if problem.parameters()[0].attributes["symmetric"] else d)
    h = 1e-5
    moved = [everything(first + s * h * d)[0] @ g for s in (1, -1)]
    difference = (moved[0] - moved[1]) / (2 * h)
    values = (first, *rest)
    return {
        "result": next(iter(name_of(found.result).split(", "))),
        "answer": min(apart(layer.as_cvxpy(*values), y)),
        "gradient": float(abs(jnp.sum(pulled * d) - difference) / max(1.0, abs(difference))),
        "measure": float(found.point.measure),
        "verdict": judged.verdict,
    }


def gallery():
    stated = right = 0
    for name, (problem, values) in programs().items():
        clock = time.perf_counter()
        try:
            line = check(problem, values)
            stated += 1
            right += (
                line["answer"] < 1e-7 and line["gradient"] < 1e-6 and line["verdict"] == "optimal"
            )
        except ValueError as error:
            line = {"refused": str(error)[:100]}
        print(json.dumps({"program": name, **line, "s": time.perf_counter() - clock}), flush=True)
    print(json.dumps({"stated": stated, "right": right}))


def entropy():
    for n, batch in ((10, 64), (100, 64)):
        p, z, eps = V(n, name="p"), P(n), P(nonneg=True)
        cost = cp.Minimize(-z @ p - eps * cp.sum(cp.entr(p)))
        layer = hj.ProgramLayer(cp.Problem(cost, [cp.sum(p) == 1]))
        Z, G = (jnp.asarray(draw(batch, n)) for _ in range(2))
        ours = lambda z, g, e: jax.vjp(lambda z: layer.solve(z, e).variables["p"], z)[1](g)[0]
        closed = lambda z, g, e: jax.vjp(hj.Softmax(e), z)[1](g)[0]
        run = jax.jit(jax.vmap(ours, (0, 0, None)))
        for e in (1.0, 0.3, 0.1, 0.03, 0.01):
            clock = time.perf_counter()
            got = jax.block_until_ready(run(Z, G, jnp.asarray(e)))
            clock = time.perf_counter() - clock
            want = jax.vmap(closed, (0, 0, None))(Z, G, jnp.asarray(e))
            error = jnp.linalg.norm(got - want, axis=1) / jnp.linalg.norm(want, axis=1)
            worst = {"worst": float(jnp.max(error)), "median": float(jnp.median(error))}
            print(json.dumps({"n": n, "eps": e, **worst, "s": clock}), flush=True)


if __name__ == "__main__":
    entropy() if "entropy" in sys.argv[1:] else gallery()
