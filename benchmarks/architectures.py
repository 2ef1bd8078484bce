"""Every architecture trained on whole digits, its costate verified before and after.

Seed 0; 1437 samples to train on, 360 to test on; Adam, full batch. `python architectures.py [NAME ...]`
"""

import sys

import jax
import jax.numpy as jnp
import optax
from harness import header, row

import hjcontrol as hj
from hjcontrol.networks import ARCHITECTURES, architecture

SIZES = {
    "feedforward": {"width": 32},
    "residual": {},
    "transformer": {"width": 16, "depth": 2},
    "rnn": {"width": 32},
    "gru": {"width": 24},
    "lstm": {"width": 24},
    "ssm": {"width": 24},
    "log-semiring": {"width": 24},
}
STEPS = 300


def main(names: list[str]) -> None:
    header("architectures on digits")
    parts = hj.data.split(hj.data.load("digits"), 0.8, key=jax.random.key(0))
    for name in names or ARCHITECTURES:
        built = architecture(name, 64, 10, **SIZES.get(name, {}))
        stated = lambda data, built=built: hj.ControlProblem(
            **built.ensemble(jnp.asarray(data.features)),
            targets=data.targets,
            terminal=hj.control.softmax_cross_entropy,
            running=hj.control.Ridge(1e-4),
        )
        problem, test = stated(parts.train), stated(parts.test)
        start = problem.init(jax.random.key(1))
        before = hj.verify(problem, start)
        solver = hj.solvers.Gradient(optax.adam(1e-2))
        solution = hj.solve(problem, solver, init=start, max_steps=STEPS)
        after = hj.verify(solution)
        hit = lambda p: float(
            jnp.mean(
                jnp.argmax(jax.jit(lambda w: p.rollout(w).final)(solution.weights), -1) == p.targets
            )
        )
        row(
            architecture=name,
            stages=len(problem.chain),
            weights=after.problem["weights"],
            seconds=solution.stats["solve_seconds"],
            steps=STEPS,
            objective=float(solution.objective),
            train=hit(problem),
            test=hit(test),
            at_start=before.agreement["backprop|pairing"],
            trained=after.agreement["backprop|pairing"],
            verdict=after.verdict,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
