"""Compile time against depth: 8 and 256 equal stages."""

import time

import equinox as eqx
import jax
from digits import digits
from harness import header, row

import hjcontrol as hj


def main() -> None:
    header("Compile seconds of objective and gradient against depth (best of 5, caches cleared)")
    for width in (16,):
        for depth in (8, 256):
            problem = digits(samples=100, width=width, depth=depth)
            weights = problem.init(jax.random.key(0))
            best = float("inf")
            for _ in range(5):
                jax.clear_caches()
                clock = time.perf_counter()
                eqx.filter_jit(hj.control.value_and_gradient).lower(problem, weights).compile()
                best = min(best, time.perf_counter() - clock)
            value, gradient = eqx.filter_jit(hj.control.value_and_gradient)(problem, weights)
            _, again = eqx.filter_jit(hj.control.costate)(problem, weights)
            leaves = zip(jax.tree.leaves(gradient), jax.tree.leaves(again), strict=True)
            gap = max(float(abs(a - b).max()) for a, b in leaves)
            row(depth=depth, compile_seconds=best, objective=float(value), against_costate=gap)


if __name__ == "__main__":
    main()
