"""50 digits, width 8, depth 3, same start: Newton against IPOPT on the multiple-shooting NLP.

From random weights the two usually end at different stationary points of this nonconvex problem, so
that run compares times only. From a start where L-BFGS has brought the gradient to 1e-5 they end at
the same one, and the objectives must agree.
"""

import jax
import numpy as np
import optax
from digits import digits
from harness import header, row, timed

import hjcontrol as hj


def compare(name: str, problem: hj.ControlProblem, start) -> None:
    newton = hj.solvers.Newton(tol=1e-8)
    whole, least, most = timed(lambda: hj.solve(problem, newton, init=start).weights)
    mine = hj.solve(problem, newton, init=start)
    row(
        start=name,
        method="newton",
        objective=float(mine.objective),
        stationarity=mine.stats["stationarity"],
        steps=mine.stats["num_steps"],
        solve_seconds=mine.stats["solve_seconds"],
        whole_call_seconds=whole,
        least=least,
        most=most,
    )
    ipopt = hj.solve(problem, hj.solvers.Direct(tol=1e-8), init=start)
    _, _, costate, _ = hj.control.backpropagate(problem, ipopt.weights)
    pairs = [(np.asarray(costate[k]), np.asarray(ipopt.multipliers[k])) for k in range(1, 6)]
    worst = max(float(np.max(np.abs(p - m)) / np.max(np.abs(p))) for p, m in pairs)
    row(
        start=name,
        method="IPOPT, multiple shooting",
        objective=float(ipopt.objective),
        stationarity=ipopt.stats["stationarity"],
        steps=ipopt.stats["num_steps"],
        transcription_seconds=ipopt.stats["compile_seconds"],
        solve_seconds=ipopt.stats["solve_seconds"],
        multipliers_against_backprop=worst,
        objective_gap=abs(float(ipopt.objective) - float(mine.objective)),
        newton_times_faster=ipopt.stats["solve_seconds"] / mine.stats["solve_seconds"],
        newton_whole_call_times_faster=ipopt.stats["solve_seconds"] / whole,
    )


def main() -> None:
    header("50 digits, width 8, depth 3, to 1e-8")
    problem = digits(samples=50, width=8, depth=3)
    start = problem.init(jax.random.key(0))
    near = hj.solve(problem, hj.solvers.Gradient(optax.lbfgs(), tol=1e-5), init=start)
    compare("stationarity 1e-5", problem, near.weights)
    compare("random", problem, start)


if __name__ == "__main__":
    main()
