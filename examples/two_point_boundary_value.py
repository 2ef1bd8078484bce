"""A contracting chain by shooting: one costate at the start is not enough, several segments are.

    x_{k+1} = x_k / 3 + b_k,  k = 0..39        1/2 |x_K - y|^2 + sum_k (rho/2) b_k^2

p_K depends on p_0 with the factor 3^40, about 1e19: more than float64 resolves.
"""

import jax
import numpy as np

import hjcontrol as hj
from hjcontrol.solvers import Shooting

jax.config.update("jax_enable_x64", True)
DEPTH = 40


def main() -> None:
    ones = np.ones((DEPTH, 1, 1))
    problem = hj.control.linear_quadratic(ones / 3, ones, [[-1.0]], [[0.5]], ridge=0.3, state=0.2)
    for segments in (1, 20):
        solution = hj.solve(problem, Shooting(segments=segments), key=jax.random.key(0))
        print(f"{segments} segments\n{solution}\n")


if __name__ == "__main__":
    main()
