"""Programs as layers beside their peers, in one process, at the accuracy that each reaches.

python program_layers_peers.py quadratic   # against qpax: n = 8, 50, 200
python program_layers_peers.py squares     # least squares against cvxpylayers: build, memory, gradient
python program_layers_peers.py scaled      # 300 badly scaled quadratic programs: right, or said not to be

`error` is the distance to a reference: the same program solved by us, its certificate beside it.
Needs `qpax`, and `cvxpylayers` with `diffcp`; a peer that is missing is named and left out.
"""

import importlib.util
import resource
import sys
import time
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
from harness import header, row, timed

import hjcontrol as hj
from hjcontrol.layers import QuadraticProgram

jax.config.update("jax_enable_x64", True)


def quadratics(n, m, k, batch, spread=0.0, seed=0):
    """Feasible strictly convex programs; `spread`: variables in units of exp(spread N(0, 1))."""
    rng, parts = np.random.default_rng(seed), []
    for _ in range(batch):
        L, D = rng.standard_normal((n, n)), np.exp(spread * rng.standard_normal(n))
        P = D[:, None] * (L @ L.T / n + 0.1 * np.eye(n)) * D
        G, A = rng.standard_normal((m, n)) * D, rng.standard_normal((k, n)) * D
        inside = 0.1 * rng.standard_normal(n) / D
        h = np.maximum(rng.random(m) + 0.1, G @ inside + 0.1 * rng.random(m))
        parts.append((P, D * rng.standard_normal(n), A, A @ inside, G, h))
    return [np.stack(v) for v in zip(*parts, strict=True)]


def relative(x, y):
    """The worst sample's distance, over the length of its reference, over 1 where that is 0."""
    x, y = np.asarray(x), np.asarray(y)
    length = np.linalg.norm(y, axis=1)
    return float(np.max(np.linalg.norm(x - y, axis=1) / np.where(length > 0, length, 1.0)))


def missing(package):
    absent = importlib.util.find_spec(package) is None
    if absent:
        print(f"  ({package} is not installed: left out)")
    return absent


def quadratic():
    for n, m, k, batch in ((8, 12, 2, 1000), (50, 75, 10, 50), (200, 300, 40, 4)):
        data = [jnp.asarray(v) for v in quadratics(n, m, k, batch)]
        g = jnp.asarray(np.random.default_rng(1).standard_normal((batch, n)))
        one = lambda *d: QuadraticProgram(*d).solve()
        pull = lambda g, P, q, *d: jax.vjp(lambda q: one(P, q, *d).x, q)[1](g)[0]
        runs = {"ours": (jax.jit(jax.vmap(one)), jax.jit(jax.vmap(pull)))}
        found = runs["ours"][0](*data)
        reference, slope = found.x, runs["ours"][1](g, *data)
        if not missing("qpax"):
            import qpax

            for tol in (1e-6, 1e-9, 1e-12):
                solve = lambda P, q, A, b, G, h, tol=tol: qpax.solve_qp(
                    P, q, A, b, G, h, solver_tol=tol
                )
                primal = lambda q, P, A, b, G, h, tol=tol: qpax.solve_qp_primal(
                    P, q, A, b, G, h, solver_tol=tol, target_kappa=1e-6
                )
                back = lambda g, P, q, *d, f=primal: jax.vjp(lambda q: f(q, P, *d), q)[1](g)[0]
                runs[f"qpax {tol:.0e}"] = jax.jit(jax.vmap(solve)), jax.jit(jax.vmap(back))
        for name, (forward, backward) in runs.items():
            out = forward(*data)
            x = out.x if name == "ours" else out[0]
            ended = np.mean(out.converged) if name == "ours" else np.mean(out[4])
            steps = out.steps if name == "ours" else out[5]
            t, low, high = timed(lambda f=forward: f(*data), 3)
            tb, *_ = timed(lambda f=backward: f(g, *data), 3)
            row(
                what="quadratic", who=name, n=n, batch=batch, seconds=t, least=low, most=high,
                error=relative(x, reference), converged=float(ended), steps=float(np.max(steps)),
                with_gradient=tb, gradient_error=relative(backward(g, *data), slope),
                measure=float(np.max(found.measure)),
            )  # fmt: skip


def squares():
    import cvxpy as cp

    rng = np.random.default_rng(0)
    A0, b0, g = rng.standard_normal((100, 20)), rng.standard_normal(100), rng.standard_normal(20)
    inverse = np.linalg.inv(A0.T @ A0)
    wanted = A0 @ inverse @ g  # d (g.x) / d b

    def stated():
        x, A, b = cp.Variable(20, name="x"), cp.Parameter((100, 20)), cp.Parameter(100)
        return cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b))), [A, b], [x]

    def ours():
        layer = hj.ProgramLayer(stated()[0])
        return lambda A, b: layer.solve(A, b).variables["x"]

    makers = {"ours": ours}
    if not missing("cvxpylayers"):
        from cvxpylayers.jax import CvxpyLayer

        def theirs():
            problem, parameters, variables = stated()
            layer = CvxpyLayer(problem, parameters, variables)
            return lambda A, b: layer(A, b)[0]

        makers["cvxpylayers"] = theirs
    A, b = jnp.asarray(A0), jnp.asarray(b0)
    for name, make in makers.items():
        make()  # what is imported late is not counted
        tracemalloc.start()
        clock = time.perf_counter()
        f = make()
        build = time.perf_counter() - clock
        kept, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        loss = lambda A, b, f=f: f(A, b) @ g
        slope = jax.grad(loss, argnums=(0, 1))
        slope = jax.jit(slope) if name == "ours" else slope  # theirs is not made for jit
        got = slope(A, b)[1]
        t, low, high = timed(lambda s=slope: s(A, b), 20)
        row(
            what="least squares 100 x 20", who=name, build=build, kept_MB=kept / 1e6,
            peak_MB=peak / 1e6, seconds=t, least=low, most=high,
            error=float(np.max(np.abs(f(A, b) - np.linalg.lstsq(A0, b0, rcond=None)[0]))),
            gradient_error=float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted)),
            rss_MB=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        )  # fmt: skip


def scaled():
    """Units of 10^u, u uniform in [-6, 6], for every variable and every row; the reference is solved in
    units of 1 and carried over."""
    batch = 300
    P, q, A, b, G, h = quadratics(8, 12, 2, batch)
    rng = np.random.default_rng(5)
    D, E, F = (10.0 ** rng.uniform(-6, 6, (batch, k)) for k in (8, 2, 12))
    run = jax.jit(jax.vmap(lambda *d: QuadraticProgram(*d).solve()))
    plain = run(*map(jnp.asarray, (P, q, A, b, G, h)))
    rough = (
        P * D[:, :, None] * D[:, None, :], q * D, A * E[:, :, None] * D[:, None, :], b * E,
        G * F[:, :, None] * D[:, None, :], h * F,
    )  # fmt: skip
    found = run(*map(jnp.asarray, rough))
    off = np.max(np.abs(found.x * D - plain.x), axis=1) / np.max(np.abs(plain.x), axis=1)
    said = np.asarray(found.converged)
    row(
        what="badly scaled", programs=batch, reference=float(np.max(plain.measure)),
        said_right=int(said.sum()), right=int((said & (off < 1e-7)).sum()),
        wrong_but_said_right=int((said & (off >= 1e-7)).sum()),
        worst_of_said=float(np.max(off, where=said, initial=0.0)),
        infeasible_said=int(np.asarray(found.infeasible | found.unbounded).sum()),
    )  # fmt: skip


if __name__ == "__main__":
    header("Programs as layers beside their peers")
    for part in sys.argv[1:] or ("quadratic", "squares", "scaled"):
        {"quadratic": quadratic, "squares": squares, "scaled": scaled}[part]()
