"""Handwritten digits as a control problem, solved twice from one start: by L-BFGS and by Newton.

    minimise  (1/n) sum_i cross_entropy(x_K^i, y^i) + ridge      over residual tanh stages

Then the witness compares two independent routes to the costate at Newton's solution.
"""

import jax
import jax.numpy as jnp
import optax

import hjcontrol as hj

jax.config.update("jax_enable_x64", True)

digits = hj.split(hj.load("digits"), 120, key=jax.random.key(0))
problem = hj.ControlProblem(
    [
        hj.lift(64, 6),
        *[hj.Residual(hj.Dense(6, 6), 0.5)] * 2,
        hj.readout(6, 10),
    ],
    digits.train.features,
    digits.train.targets,
    terminal=hj.softmax_cross_entropy,
    running=hj.Ridge(0.02),
)


def accuracy(weights):
    """Share of test digits read correctly."""
    logits = jax.vmap(lambda x: problem.chain(weights, x))(jnp.asarray(digits.test.features))
    return float(jnp.mean(jnp.argmax(logits, axis=-1) == digits.test.targets))


start = problem.init(jax.random.key(1))
for method in (
    hj.Gradient(optax.lbfgs(), tol=1e-5, label="lbfgs"),
    hj.Newton(tol=1e-11),
):
    solution = hj.solve(problem, method, init=start)
    print(solution)
    print(f"  test accuracy {accuracy(solution.weights):.3f}\n")

print(hj.verify(solution))
