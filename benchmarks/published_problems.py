"""Published control problems: the printed value, ours, and CasADi's by hand, with the seconds of solving.

    published_problems.py [NAME]      all, or those whose name begins so (4 minutes)

Both programs are solved seven times in turn from the same start; seconds are the best, in IPOPT alone,
beside its steps.
"""

import pathlib
import sys

import jax
import numpy as np

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))

import hjcontrol as hj
from tests.oracles.published_problems import PROBLEMS, by_hand, stated


def main(name: str = "") -> None:
    jax.config.update("jax_enable_x64", True)
    print(
        f"{'problem':<33}{'published':>11}{'hjcontrol':>13}{'by hand':>13}{'apart':>7}"
        f"{'ours':>8}{'steps':>6}{'hand':>8}{'steps':>6}{'x':>6}  result"
    )
    ratios = []
    for p in (p for p in PROBLEMS if p.name.startswith(name)):
        problem, start = stated(p)
        pairs = [(hj.solve(problem, "direct", init=start), by_hand(p)) for _ in range(7)]
        runs = [ours for ours, _ in pairs]
        value, seconds, steps = min((hand for _, hand in pairs), key=lambda found: found[1])
        ours, own = float(runs[0].objective), min(r.stats["solve_seconds"] for r in runs)
        ratios.append(own / seconds)
        good = runs[0].result == hj.RESULTS.successful
        print(
            f"{p.name:<33}{p.value:>11.6f}{ours:>13.8f}{value:>13.8f}{abs(ours - value):>7.0e}"
            f"{own:>7.3f}s{runs[0].stats['num_steps']:>6}{seconds:>7.3f}s{steps:>6}{ratios[-1]:>6.2f}  "
            f"{'successful' if good else runs[0].stats['message'][:40]}",
            flush=True,
        )
    print(f"median of the ratios {np.median(ratios):.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
