"""`crosscheck` without its minutes: every method hands back its start, every witness agrees.

Imported by tests, and run as a script where a test needs a process of its own.
"""

import resource
import sys
import time
import types

import numpy as np

import hjcontrol as hj
from hjcontrol.cli import main
from hjcontrol.solvers.driver import solve as real_solve
from tests.reporting.pieces import Certificate, Still


def solve(problem, method, *, init, progress):
    return real_solve(problem, Still(label=method), init=init, progress=progress)


def verify(solution, *, verdict="exact", **asked):
    del asked
    stages = len(solution.problem.chain)
    pairs = ["backprop|pairing", "backprop|recursion"]
    pairs += ["backprop|multipliers"] if solution.solver == "direct" else []
    return Certificate(
        verdict=verdict,
        agreement=dict.fromkeys(pairs, 3e-16),
        finite_difference=1e-9,
        per_stage={
            pair: {"states": np.full(stages + 1, 1e-16), "weights": np.zeros(stages)}
            for pair in pairs
        },
    )


def crosscheck(problem, *solutions, polish, certificates, progress):
    del problem, polish, progress
    assert len(solutions) == len(certificates)
    return types.SimpleNamespace(weight_distance=np.full((2, 2), 1e-12))


class Named(str):
    """A method that is its name, and treats every problem."""

    def check(self, problem):
        del problem


def install(setattr=setattr):
    """Put the fakes in the places of the real ones."""
    setattr(hj, "solve", solve)
    setattr(hj, "verify", verify)
    setattr(hj, "crosscheck", crosscheck)
    setattr(hj.solvers, "by_name", lambda name, **options: Named(name))


if __name__ == "__main__":
    how, *line = sys.argv[1:]
    install()
    if how == "slow":

        def slow(problem, method, *, init, progress):
            if method == "newton":
                print("READY", flush=True)
                time.sleep(60)
            return solve(problem, method, init=init, progress=progress)

        hj.solve = slow
    elif how.startswith("limit="):
        size = int(how.removeprefix("limit="))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    sys.exit(main(line))
