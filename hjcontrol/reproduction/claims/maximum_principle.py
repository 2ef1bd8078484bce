r"""Is a trained network an extremal of the maximum principle?

    dH/dtheta = 0 is followed; H is not minimised.

x_1 = x_0 + h v(theta),  v = theta^4/4 + c theta^2 + theta/2, c = -2,  J = x_1:   H(theta) = p h
v(theta), p = 1
"""

import equinox as eqx
import jax
import numpy as np

from hjcontrol.control import ControlProblem, backpropagate
from hjcontrol.reproduction.claim import Claim, Evidence, evidence, those
from hjcontrol.reproduction.finding import at_least, zero

STEP = 0.5


@eqx.filter_jit
def _slope(problem, theta):
    return backpropagate(problem, theta)[3][0].reshape(())


def _measure(c: float) -> Evidence:
    velocity = lambda theta: theta**4 / 4 + c * theta**2 + theta / 2
    stage = (lambda x, theta: x + STEP * velocity(theta), np.array([1.0]))
    problem = ControlProblem([stage], np.zeros((1, 1)), terminal=lambda x: x[0])
    shape = lambda theta: jax.tree.map(
        lambda a: np.full(a.shape, theta), problem.init(jax.random.key(0))
    )
    far = float(_slope(problem, shape(1.0)))
    theta = 1.0
    for _ in range(400):  # gradient descent, as in training
        theta -= 0.1 * float(_slope(problem, shape(theta)))
    others = np.linspace(-3, 3, 601)
    hamiltonian = STEP * velocity(others)
    excess = STEP * velocity(theta) - min(hamiltonian.min(), STEP * velocity(theta))
    return evidence(
        zero("H − min H where gradient descent ends", excess, 1e-6),
        zero("∂H/∂θ there", STEP * (theta**3 + 2 * c * theta + 0.5), 1e-10, role="instead"),
        zero("backpropagation − ∂H/∂θ at θ = 1", far - STEP * (1.5 + 2 * c), 1e-13, role="instead"),
        at_least("how far H is above its minimum", excess, 0.5, role="instead"),
    )


CLAIM = Claim(
    id="maximum-principle",
    title="Training by backpropagation is Pontryagin's maximum principle",
    source="popular summary; abstract by its wording",
    published="Backpropagation is identical to Pontryagin's principle.",
    precise="It supplies the costate and ∂_θH. The principle demands that θ optimise H, which "
    "descent need not reach, and in discrete time even optimality gives only ∂_θH = 0 unless the "
    "velocities {f(x, θ)} are convex.",
    check=lambda fast: _measure(-2.0),
    fault="the velocity is convex in θ, where the principle does hold",
    control=lambda fast: Evidence(those(_measure(2.0), "H − min H", "how far")),
    recorded="fails as stated",
)
