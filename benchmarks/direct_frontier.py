"""How large a problem the direct method takes, beside hand-written CasADi and Newton.

    direct_frontier.py donut [FILE.png]    donut, 10 layers x 2 channels, 20 to 500 samples
    direct_frontier.py digits [FILE.png]   digits, width 6, depth 3, to 1e-8, up to five minutes

Donut: two classes in the plane, x <- x + 0.5 tanh(W x + b) ten times, a linear readout, logistic loss,
ridge 1e-4. By hand: the same program in CasADi as its manual would have it, one mapped stage, IPOPT with
its own exact Hessian. All from the same weights, to a stationarity of 1e-8.
"""

import sys
import time

import casadi as ca
import jax
import jax.numpy as jnp
import numpy as np
from digits import digits
from harness import header, row

import hjcontrol as hj
from hjcontrol.networks import Dense, Residual, readout

LAYERS, STEP, RIDGE, TOL = 10, 0.5, 1e-4, 1e-8


def points(samples: int) -> tuple[np.ndarray, np.ndarray]:
    """A disc within a ring."""
    draw = np.random.default_rng(0)
    label = np.arange(samples) % 2
    radius = np.where(label, draw.uniform(0.8, 1.2, samples), draw.uniform(0, 0.5, samples))
    angle = draw.uniform(0, 2 * np.pi, samples)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1), label


def donut(samples: int) -> hj.ControlProblem:
    x, label = points(samples)
    stages = [*[Residual(Dense(2, 2), STEP)] * LAYERS, readout(2, 2)]
    return hj.ControlProblem(
        stages,
        jnp.asarray(x),
        jnp.asarray(label),
        terminal=hj.control.softmax_cross_entropy,
        running=hj.control.Ridge(RIDGE),
    )


def by_hand(problem: hj.ControlProblem, weights) -> tuple[float, float, int]:
    """Objective, seconds and iterations of plain CasADi."""
    x0, label = np.asarray(problem.inputs).T, np.asarray(problem.targets)
    n = x0.shape[1]
    x, th = ca.SX.sym("x", 2), ca.SX.sym("th", 6)
    after = x + STEP * ca.tanh(ca.reshape(th[:4], 2, 2).T @ x + th[4:])
    F = ca.Function("F", [x, th], [after])
    opti, cost, start = ca.Opti(), 0, np.asarray(problem.inputs).T
    thetas = [np.concatenate([np.ravel(t.W), t.b]) for t in problem.chain.unstack(weights)]
    state = ca.DM(x0)
    for flat in thetas[:-1]:
        theta, new = opti.variable(6), opti.variable(2, n)
        opti.subject_to(F.map(n)(state, ca.repmat(theta, 1, n)) == new)
        opti.set_initial(theta, flat)
        start = np.array(F.map(n)(start, np.repeat(flat[:, None], n, 1)))
        opti.set_initial(new, start)
        cost, state = cost + RIDGE / 2 * ca.sumsqr(theta), new
    last = opti.variable(6)
    opti.set_initial(last, thetas[-1])
    logits = ca.reshape(last[:4], 2, 2).T @ state + ca.repmat(last[4:], 1, n)
    hit = logits[0, :] * (label == 0)[None] + logits[1, :] * (label == 1)[None]
    top = ca.fmax(logits[0, :], logits[1, :])
    lse = top + ca.log(ca.exp(logits[0, :] - top) + ca.exp(logits[1, :] - top))
    opti.minimize(cost + RIDGE / 2 * ca.sumsqr(last) + ca.sum2(lse - hit) / n)
    silent = {"print_level": 0, "sb": "yes", "tol": TOL, "max_iter": 3000}
    opti.solver("ipopt", {"print_time": False}, silent)
    clock = time.perf_counter()
    try:
        solved = opti.solve()
    except RuntimeError:
        solved = opti.debug
    seconds = time.perf_counter() - clock
    return float(solved.value(opti.f)), seconds, int(opti.stats()["iter_count"])


def compare(samples: int) -> dict[str, float]:
    """A row a method; seconds by method."""
    problem = donut(samples)
    init = problem.init(jax.random.key(0))
    value, seconds, steps = by_hand(problem, init)
    row(samples=samples, method="CasADi by hand", objective=value, seconds=seconds, steps=steps)
    direct = hj.solve(problem, hj.solvers.Direct(tol=TOL), init=init, max_steps=3000)
    newton = hj.solvers.Newton(tol=TOL)
    hj.solve(problem, newton, init=init)  # compiled
    mine = hj.solve(problem, newton, init=init)
    for name, found in {"direct": direct, "newton": mine}.items():
        row(
            samples=samples,
            method=name,
            objective=float(found.objective),
            stationarity=found.stats["stationarity"],
            seconds=found.stats["solve_seconds"],
            building=found.stats["compile_seconds"],
            steps=found.stats["num_steps"],
            times_by_hand=found.stats["solve_seconds"] / seconds,
            times_direct=found.stats["solve_seconds"] / direct.stats["solve_seconds"],
        )
    return {
        "CasADi by hand": seconds,
        "direct": direct.stats["solve_seconds"],
        "newton": mine.stats["solve_seconds"],
    }


def larger(samples: int) -> dict[str, float]:
    """One size of the digits, Newton beside it; seconds by method."""
    problem = digits(samples=samples, width=6, depth=3)
    init = problem.init(jax.random.key(0))
    direct = hj.solve(problem, hj.solvers.Direct(tol=TOL / 10), init=init, max_steps=3000)
    newton = hj.solvers.Newton(tol=TOL)
    hj.solve(problem, newton, init=init)
    mine = hj.solve(problem, newton, init=init)
    for name, found in {"direct": direct, "newton": mine}.items():
        row(
            samples=samples,
            method=name,
            objective=float(found.objective),
            stationarity=found.stats["stationarity"],
            building=found.stats["compile_seconds"],
            seconds=found.stats["solve_seconds"],
            steps=found.stats["num_steps"],
            result=hj.RESULTS[found.result] or "successful",
        )
    return {"direct": direct.stats["solve_seconds"], "newton": mine.stats["solve_seconds"]}


def picture(path: str, title: str, seconds: dict[int, dict[str, float]]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4.5))
    for name in next(iter(seconds.values())):
        axes.loglog(list(seconds), [s[name] for s in seconds.values()], "o-", label=name)
    axes.set(title=title, xlabel="samples", ylabel="seconds to a stationarity of 1e-8")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "donut"
    title = {"donut": "donut, 10 layers x 2 channels", "digits": "digits, width 6, depth 3"}[name]
    header(title)
    seconds: dict[int, dict[str, float]] = {}
    for samples in (20, 50, 100, 200, 500) if name == "donut" else (50, 100, 150, 200, 300, 600):
        seconds[samples] = (compare if name == "donut" else larger)(samples)
        if (
            name == "digits" and seconds[samples]["direct"] > 100
        ):  # the next one takes over five minutes
            break
    if len(sys.argv) > 2:
        picture(sys.argv[2], title, seconds)


if __name__ == "__main__":
    main()
