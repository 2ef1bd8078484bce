"""One sample, many stages: what a control engineer tries first.

`auto` on a linear-quadratic problem (second call, compiled) beside a jitted Riccati sweep and rollout by
hand; FATROP in stage order beside IPOPT on Lotka-Volterra fishing, solving alone.

    one_sample.py            both tables (2 minutes)
    one_sample.py lq         the first
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from harness import header, row, timed

import hjcontrol as hj


def lq(d: int, m: int, depth: int) -> tuple[hj.ControlProblem, dict[str, jax.Array]]:
    """A stable chain of d states and m controls."""
    keys = jax.random.split(jax.random.key(0), 3)
    A = 0.98 * jnp.linalg.qr(jax.random.normal(keys[0], (d, d)))[0]
    B = jax.random.normal(keys[1], (d, m)) / np.sqrt(d)
    x0 = jax.random.normal(keys[2], (d,))
    problem = hj.ControlProblem(
        [(lambda x, u: A @ x + B @ u, jnp.zeros(m))] * depth,
        x0[None],
        terminal=lambda x: 0.5 * jnp.sum(x**2),
        running=[hj.control.Ridge(0.1), lambda x, u: 0.05 * jnp.sum(x**2)],
    )
    return problem, {"A": A, "B": B, "x0": x0}


def by_hand(depth: int):
    """The textbook sweep and its rollout, one jitted program."""

    @jax.jit
    def solve(A, B, x0):
        R, Q = 0.1 * jnp.eye(B.shape[1]), 0.1 * jnp.eye(len(A))

        def back(P, _):
            K = jnp.linalg.solve(R + B.T @ P @ B, B.T @ P @ A)
            return Q + A.T @ P @ (A - B @ K), K

        _, K = jax.lax.scan(back, jnp.eye(len(A)), None, length=depth, reverse=True)

        def ahead(x, K):
            u = -K @ x
            return A @ x + B @ u, (x, u)

        last, (x, u) = jax.lax.scan(ahead, x0, K)
        return 0.5 * (jnp.sum(last**2) + 0.1 * jnp.sum(u**2) + 0.1 * jnp.sum(x**2)), u

    return solve


def linear_quadratic() -> None:
    header("One-sample LQ: auto, second call, against a sweep by hand")
    for d, m, depth in ((2, 1, 100), (4, 2, 500), (12, 4, 1000), (24, 8, 1000)):
        problem, data = lq(d, m, depth)
        hand, start = by_hand(depth), problem.init(jax.random.key(0))
        found = hj.solve(problem, "auto", init=start)
        one = timed(lambda h=hand, v=data: h(**v)[0])[0]
        whole = timed(lambda p=problem, s=start: hj.solve(p, "auto", init=s).objective)[0]
        row(
            states=d,
            controls=m,
            stages=depth,
            by_hand=one,
            auto=whole,
            ratio=whole / one,
            inside=hj.solve(problem, "auto", init=start).stats["solve_seconds"],
            sweeps=found.stats["num_steps"],
            apart=float(abs(found.objective - hand(**data)[0])),
        )


def fishing(depth: int) -> hj.ControlProblem:
    h = 12.0 / depth

    def f(x, u):
        both = x[0] * x[1]
        return jnp.stack([x[0] - both - 0.4 * x[0] * u[0], both - x[1] - 0.2 * x[1] * u[0]])

    def step(x, u):
        k1 = f(x, u)
        k2 = f(x + h / 2 * k1, u)
        k3 = f(x + h / 2 * k2, u)
        return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + f(x + h * k3, u))

    return hj.ControlProblem(
        [(step, jnp.zeros(1))] * depth,
        jnp.array([[0.5, 0.7]]),
        terminal=lambda x: 0.0 * x[0],
        running=lambda x, u: h * jnp.sum((x - 1) ** 2),
        control_set=hj.control.Box(0.0, 1.0),
    )


def structured() -> None:
    header("FATROP in stage order against IPOPT: solving alone")
    for depth in (40, 100, 200, 400):
        problem = fishing(depth)
        start, found = problem.init(jax.random.key(0)), {}
        for name in ("ipopt", "fatrop"):
            method = hj.solvers.Direct(backend=name)
            runs = [hj.solve(problem, method, init=start) for _ in range(3)]
            found[name] = min(runs, key=lambda s: s.stats["solve_seconds"])
        ipopt, fatrop = found["ipopt"], found["fatrop"]
        row(
            stages=depth,
            ipopt=ipopt.stats["solve_seconds"],
            fatrop=fatrop.stats["solve_seconds"],
            ratio=fatrop.stats["solve_seconds"] / ipopt.stats["solve_seconds"],
            a_stage=fatrop.stats["solve_seconds"] / depth,
            apart=float(abs(ipopt.objective - fatrop.objective)),
            stationarity=fatrop.stats["stationarity"],
        )


if __name__ == "__main__":
    linear_quadratic()
    if "lq" not in sys.argv:
        structured()
