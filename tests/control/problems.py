"""Problems to state laws about, each with the property that it is there for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import hjcontrol as hj
from hjcontrol.networks import Dense, Residual, lift, readout

N = 5


def _draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def classifier(dtype=None, **options):
    """A residual network on classes, with ridge."""
    options = {
        "terminal": hj.control.softmax_cross_entropy,
        "running": hj.control.Ridge(0.03),
    } | options
    stages = [lift(3, 4), *[Residual(Dense(4, 4), h) for h in (0.5, 0.25, 0.125)], readout(4, 2)]
    return hj.ControlProblem(
        stages,
        jnp.asarray(_draw(N, 3), dtype),
        jnp.asarray([0, 1, 1, 0, 1]),
        **options,
    )


def no_running_cost():
    """Terminal cost alone: `p . dx` is conserved along the tangent flow."""
    return classifier(running=())


def regression():
    """Plain layers of changing widths; every kind of running cost at once."""
    return hj.ControlProblem(
        [Dense(3, 6), Dense(6, 2, jnp.sin), Dense(2, 2), Dense(2, 2)],
        jnp.asarray(_draw(N, 3)),
        jnp.asarray(_draw(N, 2, seed=1)),
        terminal=hj.control.least_squares,
        running=[
            hj.control.Ridge(0.01),
            hj.control.StateCost(lambda x, th: 0.1 * jnp.sum(jnp.cos(x)) * jnp.sum(th.W**2)),
            hj.control.WeightCost(lambda th: jnp.sum(th.b**4)),
            lambda x, th: 0.2 * jnp.sum(x**2),
        ],
    )


def oscillator():
    """A state that is a pytree, a stage that is a plain function, no targets."""

    def swing(x, theta):
        force = theta["k"] * jnp.sin(x["q"])
        return {"q": x["q"] + 0.1 * x["p"], "p": x["p"] - 0.1 * force + 0.1 * theta["u"]}

    weights = {"k": jnp.ones(2), "u": jnp.zeros(2)}
    return hj.ControlProblem(
        [(swing, weights)] * 4,
        {"q": jnp.asarray(_draw(N, 2)), "p": jnp.asarray(_draw(N, 2, seed=1))},
        terminal=lambda x: jnp.sum(x["q"] ** 2) + 0.5 * jnp.sum(x["p"] ** 2),
        running=lambda x, th: 0.01 * jnp.sum(th["u"] ** 2) + 0.1 * jnp.sum(x["q"] ** 2),
    )


PROBLEMS = {
    "classifier": classifier,
    "no running cost": no_running_cost,
    "regression": regression,
    "oscillator": oscillator,
}


@functools.cache
def solved(name):
    """Problem, weights away from any symmetry, states, costates and gradient by one reverse pass."""
    problem = PROBLEMS[name]()
    weights = perturbed(problem.init(jax.random.key(3)))
    _, states, costates, gradient = jax.jit(lambda w: hj.control.backpropagate(problem, w))(weights)
    return problem, weights, states, costates, gradient


def perturbed(tree, scale=0.1, seed=7):
    """The tree, each entry moved by a random amount."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: a + jnp.asarray(scale * rng.normal(size=a.shape), a.dtype), tree)


def direction(tree, seed=11):
    """A random tree of the same shape."""
    return perturbed(jax.tree.map(jnp.zeros_like, tree), 1.0, seed)
