"""Every solver from one start: objective and stationarity against wall time, in a table and a picture.

    every_solver.py [FILE.png]

Digits, 300 samples, width 6, depth 3 (586 weights). Direct has its own small problem of 60 samples, with
Newton beside it. Each end point is polished by Newton to a stationary point; "same point as" names the
solvers before it that end at the same one, up to permutation and sign of hidden units. Seconds leave
compilation out.
"""

import sys

import jax
import numpy as np
from digits import digits
from harness import header, row

import hjcontrol as hj

BUDGET = {
    "adam": (3000, {}),
    "gradient": (5000, {"tol": 1e-8}),
    "newton": (5000, {"tol": 1e-10}),
    "gauss-newton": (300, {"tol": 1e-7}),
    "riccati": (40, {"tol": 1e-7}),
    "ddp": (80, {"tol": 1e-9}),
    "msa": (60, {}),
    "emsa": (300, {}),
    "shooting": (100, {}),
    "direct": (1000, {"tol": 1e-9}),
}
SMALL = ("direct",)


def study(samples: int, names: list[str]) -> dict[str, hj.Solution]:
    problem = digits(samples=samples, width=6, depth=3)
    init = problem.init(jax.random.key(0))
    found: dict[str, hj.Solution] = {}
    for name in names:
        steps, options = BUDGET[name]
        try:
            method = hj.solvers.by_name(name, **options)
            s = hj.solve(problem, method, init=init, max_steps=steps)
        except ValueError as error:
            row(samples=samples, method=name, refused=str(error)[:120])
            continue
        found[name] = s
        row(
            samples=samples,
            method=name,
            objective=float(s.objective),
            stationarity=s.stats["stationarity"],
            steps=s.stats["num_steps"],
            seconds=s.stats["solve_seconds"],
            compiling=s.stats["compile_seconds"],
            result=(hj.RESULTS[s.result] or "successful").split(".")[0],
        )
    names = list(found)
    jury = hj.crosscheck(problem, *found.values(), polish=hj.solvers.Newton(tol=1e-10))
    for i, name in enumerate(names):
        same = [n for k, n in enumerate(names[:i]) if jury.weight_distance[i, k] < 1e-5]
        value = float(jury.polished[i].objective)
        row(samples=samples, method=name, polished=value, same_point_as=same or "new")
    return found


def picture(path: str, groups: dict[str, dict[str, hj.Solution]]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(groups), figsize=(6 * len(groups), 8), squeeze=False)
    for column, (title, found) in enumerate(groups.items()):
        least = min(float(s.objective) for s in found.values())
        for name, s in found.items():
            seconds = np.maximum(s.history.seconds, 1e-4)
            # Direct's iterates are not feasible, and may lie below every feasible objective.
            above = s.history.objective - least
            above = np.where(above >= 0, np.maximum(above, 1e-12), np.nan)
            axes[0, column].loglog(seconds, above, label=name)
            axes[1, column].loglog(seconds, s.history.stationarity)
        axes[0, column].set(title=title, ylabel="objective above the least found")
        axes[1, column].set(xlabel="seconds, without compilation", ylabel="stationarity")
        axes[0, column].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    header("every solver, digits, width 6, depth 3")
    large = study(300, [n for n in BUDGET if n not in SMALL])
    small = study(60, ["newton", *SMALL])
    if len(sys.argv) > 1:
        picture(sys.argv[1], {"300 digits": large, "60 digits": small})


if __name__ == "__main__":
    main()
