"""diffrax's adjoints: gradient error against the costate equation and against the same steps.

    x' = tanh(W x + b) - decay x,  4 coordinates, 8 samples, Tsit5, float64; gradient in x0, W, b, decay

Cases: T = 5 with decay 2 and 5, T = 10 with decay 10, at tolerances 1e-4, 1e-6, 1e-8; and constant steps
of 0.05, where an adjoint that is exact for its steps agrees with `DirectAdjoint` to roundoff. Then a flow
on all digits, width 16 and 8 pieces, verified at the start and after training.

    python adjoint_ladder.py [ladder | digits]
"""

import sys
import time

import diffrax
import jax
import jax.numpy as jnp
import optax
from harness import header, row

import hjcontrol as hj


def drift(x, theta):
    W, b, decay = theta
    return jnp.tanh(W @ x + b) - decay * x


def ladder():
    keys = jax.random.split(jax.random.key(0), 3)
    W, b = jax.random.normal(keys[0], (4, 4)), 0.1 * jax.random.normal(keys[1], (4,))
    inputs = jax.random.normal(keys[2], (8, 4))
    cases = [
        (T, decay, diffrax.PIDController(rtol=1e-6, atol=1e-6), [1e-4, 1e-6, 1e-8])
        for T, decay in ((5.0, 2.0), (5.0, 5.0), (10.0, 10.0))
    ]
    cases += [(1.0, decay, diffrax.ConstantStepSize(), [0.05]) for decay in (0.0, 5.0)]
    for T, decay, controller, accuracies in cases:
        weights = (W, b, jnp.asarray(decay))
        flow = hj.networks.Flow((drift, weights), T, stepsize_controller=controller, max_steps=4096)
        found = hj.adjoint_ladder(
            flow, accuracies, inputs=inputs, weights=weights, title=f"T = {T:g}, decay {decay:g}"
        )
        print(found, flush=True)


def digits():
    data = hj.data.load("digits")
    network = hj.networks.architecture("flow", 64, 10, depth=8, t1=4.0)
    problem = hj.ControlProblem(
        **network.ensemble(jnp.asarray(data.features)),
        targets=jnp.asarray(data.targets),
        terminal=hj.control.softmax_cross_entropy,
        running=hj.control.Ridge(1e-3),
    )
    weights = problem.init(jax.random.key(0))
    solution = hj.solve(
        problem, hj.solvers.Gradient(optax.lbfgs(), tol=1e-5), init=weights, max_steps=400
    )
    print(solution)
    logits = jax.vmap(lambda x: problem.chain(solution.weights, x))(problem.inputs)
    share = float(jnp.mean(jnp.argmax(logits, axis=-1) == jnp.asarray(data.targets)))
    for name, w in (("start", weights), ("trained", solution.weights)):
        clock = time.perf_counter()
        certificate = hj.verify(problem, w, routes=("backprop", "pairing", "costate_equation"))
        print(certificate)
        (pair,) = (p for p in certificate.pairs if p.order is not None)
        row(
            at=name,
            exact=certificate.agreement["backprop|pairing"],
            continuous=pair.disagreement,
            order=pair.order[0],
            expected=pair.order[1],
            verdict=certificate.verdict,
            training_accuracy=share,
            seconds=time.perf_counter() - clock,
        )


if __name__ == "__main__":
    header("diffrax's adjoints")
    {"ladder": ladder, "digits": digits}[sys.argv[1] if len(sys.argv) > 1 else "ladder"]()
