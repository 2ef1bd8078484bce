"""`result.json` of `crosscheck`."""

from typing import Any

from hjcontrol.cli.trial import LARGE, SMALL_START, Trial, small
from hjcontrol.cli.verdicts import verdict
from hjcontrol.control import Solution
from hjcontrol.reporting.tables import accuracy, outcome


def summary(trial: Trial) -> dict[str, Any]:
    """The content of `result.json`."""
    content = {
        "problem": problem_facts(trial),
        "solvers": {name: _solver(s, trial) for name, s in trial.solutions.items()},
        "costate": {name: dict(c.agreement) for name, c in trial.certificates.items()},
        "finite_difference": {name: c.finite_difference for name, c in trial.certificates.items()},
        "direct": direct_facts(trial),
        "verdict": verdict(trial.certificates),
    }
    content |= {"not_applicable": trial.refused} if trial.refused else {}
    return content | ({"interrupted": True} if trial.interrupted else {})


def matched_rows(trial: Trial) -> list[dict[str, str]]:
    """One row a solver: where it ended, the stationary point that Newton takes it to, and which solvers
    before it on the same problem end at that point, up to permutation and sign of hidden units."""
    rows = []
    for c in trial.comparisons.values():
        size = "small copy" if c is trial.small_comparison else "full problem"
        for i, name in enumerate(c.names):
            solution = trial.small_newton if size == "small copy" and i == 0 else None
            solution = trial.solutions[name] if solution is None else solution
            same = [a for a, b in c.same if b == name]
            rows.append(
                {
                    "solver": name,
                    "problem": size,
                    "J": f"{c.objective[i]:.10g}",
                    "stationarity": f"{solution.stats['stationarity']:.1e}",
                    "seconds": f"{solution.stats['solve_seconds']:.2f}",
                    "result": outcome(solution)[0].replace("_", " "),
                    "polished J": f"{float(c.polished[i].objective):.12g}",
                    "polished to": f"{c.polished[i].stats['stationarity']:.1e}",
                    "same point as": ", ".join(same) or ("-" if i else "(first)"),
                    "costates": c.certificates[i].verdict,
                }
            )
    return rows


def problem_facts(trial: Trial) -> dict[str, Any]:
    """What was asked, and the sizes that came of it."""
    s = trial.settings
    d, m = trial.train.features.shape[1], len(trial.train.classes)
    return {
        "data": s.data,
        "target": s.target,
        "num_features": d,
        "num_classes": m,
        "classes": list(trial.train.classes),
        "num_samples": len(trial.train),
        "num_test": len(trial.test),
        "width": s.width,
        "depth": s.depth,
        "step": s.step,
        "ridge": s.ridge,
        "seed": s.seed,
        "num_weights": (d + 1) * s.width + s.depth * (s.width + 1) * s.width + (s.width + 1) * m,
        "dtype": str(trial.train.features.dtype),
    }


def direct_facts(trial: Trial) -> dict[str, Any] | None:
    """The transcribed problem against Newton's solution of it; `None` if it was not reached."""
    newton, direct = trial.small_newton, trial.solutions.get("direct")
    if newton is None or direct is None:
        return None
    certificate = trial.certificates.get("direct")
    pairs = {} if certificate is None else certificate.agreement
    comparison = trial.small_comparison
    place = 1 + [name for name in trial.solutions if name not in LARGE].index("direct")
    return {
        "num_samples": direct.problem.num_samples,
        "objective_gap": abs(float(direct.objective) - float(newton.objective)),
        # After polishing, and up to permutations and signs of hidden units.
        "weight_distance": None
        if comparison is None
        else float(comparison.weight_distance[0, place]),
        "multiplier_disagreement": next(
            (v for k, v in pairs.items() if set(k.split("|")) == {"backprop", "multipliers"}), None
        ),
        "seconds": direct.stats["solve_seconds"],
        "newton_seconds": newton.stats["solve_seconds"],
    }


def small_size(trial: Trial) -> str:
    """The small copy in words."""
    width, depth = small(trial.settings)
    return f"small copy (width {width}, depth {depth}, from stationarity {SMALL_START:.0e})"


def _solver(solution: Solution, trial: Trial) -> dict[str, Any]:
    s = solution.stats
    return {
        "objective": s["objective"],
        "stationarity": s["stationarity"],
        "num_steps": s["num_steps"],
        "compile_seconds": s["compile_seconds"],
        "solve_seconds": s["solve_seconds"],
        "test_accuracy": accuracy(solution, trial.test_pair),
        "result": outcome(solution)[0],
    }
