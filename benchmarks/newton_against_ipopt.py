"""50 digits, width 8, depth 3, same start: Newton against IPOPT on the multiple-shooting NLP."""

import jax
import numpy as np
from digits import digits
from harness import header, row, timed

import hjcontrol as hj


def main() -> None:
    header("50 digits, width 8, depth 3, to 1e-8")
    problem = digits(samples=50, width=8, depth=3)
    start = problem.init(jax.random.key(0))
    newton = hj.solvers.Newton(tol=1e-8)
    seconds, least, most = timed(lambda: hj.solve(problem, newton, init=start).weights)
    mine = hj.solve(problem, newton, init=start)
    row(
        method="newton",
        objective=float(mine.objective),
        stationarity=mine.stats["stationarity"],
        steps=mine.stats["num_steps"],
        median_seconds=seconds,
        least=least,
        most=most,
        solve_seconds=mine.stats["solve_seconds"],
    )
    ipopt = hj.solve(problem, hj.solvers.Direct(tol=1e-8), init=start)
    _, _, costate, _ = hj.control.backpropagate(problem, ipopt.weights)
    pairs = [(np.asarray(costate[k]), np.asarray(ipopt.multipliers[k])) for k in range(1, 6)]
    worst = max(float(np.max(np.abs(p - m)) / np.max(np.abs(p))) for p, m in pairs)
    row(
        method="IPOPT, multiple shooting",
        objective=float(ipopt.objective),
        stationarity=ipopt.stats["stationarity"],
        steps=ipopt.stats["num_steps"],
        transcription_seconds=ipopt.stats["compile_seconds"],
        solve_seconds=ipopt.stats["solve_seconds"],
        multipliers_against_backprop=worst,
    )
    row(
        method="IPOPT over newton",
        objective_gap=abs(float(ipopt.objective) - float(mine.objective)),
        times_faster=ipopt.stats["solve_seconds"] / mine.stats["solve_seconds"],
        times_faster_whole_call=ipopt.stats["solve_seconds"] / seconds,
    )


if __name__ == "__main__":
    main()
