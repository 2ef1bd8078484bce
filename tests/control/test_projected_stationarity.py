"""The gradient is the sum of dH_k/dtheta, under every control set: projected stationarity, normal cones.

One problem whose stages have a leaf of weights for each set: nonlinear stages, the last two tied, so that
their one gradient is a sum of two. The Hamiltonians' side knows no derivative of J: rollout, terminal
costate, p_k = dH_k/dx backwards, dH_k/dtheta.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.control import (
    Binary,
    Box,
    ByLeaf,
    ByRun,
    Free,
    GroupBall,
    L1Ball,
    L2Ball,
    Nonnegative,
    Ridge,
    Simplex,
    Ternary,
    hamiltonian,
    terminal_costate,
)
from hjcontrol.networks import Tied
from tests.agreement import assert_agree, disagreement

LOW = np.asarray([[-0.4, 0.0], [-1.0, -0.1]])
LEAVES = {
    "free": Free(),
    "box": Box(LOW, 0.3),
    "nonnegative": Nonnegative(),
    "l2": L2Ball(0.5),
    "l1": L1Ball(0.6),
    "simplex": Simplex(0.7),
    "group": GroupBall(0.2),
    "binary": Binary(),
    "ternary": Ternary(),
}
CONVEX = {name: of for name, of in LEAVES.items() if of.convex}
HULLS = CONVEX | {name: LEAVES[name].relaxed for name in ("binary", "ternary")}
BY_LEAF = ByLeaf(LEAVES)
BY_RUN = ByRun((ByLeaf(l1=L1Ball(0.2), binary=Ternary(), free=Binary()), L2Ball(0.4)))
PRODUCTS = {"by leaf": BY_LEAF, "by run": BY_RUN}
RNG = np.random.default_rng(11)
MIX = jnp.asarray(RNG.normal(size=(len(LEAVES), 3, 4)))
TURN = jnp.asarray(RNG.normal(size=(3, 3)))
SIGNS = jnp.asarray(np.sign(RNG.normal(size=(2, 4))))
X, Y = (jnp.asarray(RNG.normal(size=(5, 3))) for _ in range(2))


def stage(x, theta):
    """Weights enter additively; those of finite sets feed a fourth state, which has a price."""
    state, price = x[:3], x[3:]
    push = sum(MIX[i] @ theta[name].ravel() for i, name in enumerate(CONVEX))
    drive = sum(SIGNS[i] @ theta[name].ravel() for i, name in enumerate(("binary", "ternary")))
    return jnp.concatenate([state + 0.2 * jnp.tanh(TURN @ state) + 0.3 * push, price + drive])


def steered(control_set):
    start = {name: jnp.asarray(RNG.normal(size=(2, 2))) for name in LEAVES}
    return hj.ControlProblem(
        [(stage, start), (stage, start), Tied((stage, start), 2)],
        jnp.concatenate([X, jnp.zeros((5, 1))], axis=1),
        Y,
        terminal=lambda x, y: 0.5 * jnp.sum((x[:3] - y) ** 2) + x[3],
        running=Ridge(0.2),
        control_set=control_set,
    )


PROBLEM = steered(ByLeaf(HULLS))


def summed(weights, bump):
    """`sum dH_k/dtheta` of every set of weights, the costate at the end moved by `bump`."""
    chain, states = PROBLEM.chain, PROBLEM.rollout(weights)
    p, found = terminal_costate(PROBLEM, states.final) + bump, []
    for k in reversed(range(len(chain))):
        value = lambda x, theta, k=k, p=p: hamiltonian(PROBLEM, k, x, p, theta)
        p, slope = jax.grad(value, (0, 1))(states[k], chain.unstack(weights)[k])
        found.append(slope)
    one, two, three, four = reversed(found)
    add = lambda *g: jax.tree.map(jnp.add, *g)
    # Each of the two tied Hamiltonians has the weights' cost, which is paid once.
    once = jax.grad(PROBLEM.weight_cost)(jax.tree.map(lambda a: a[0], weights[1]))
    tied = jax.tree.map(jnp.subtract, add(three, four), once)
    first = jax.tree.map(lambda *a: jnp.stack(a), one, two)
    return first, jax.tree.map(lambda a: a[None], tied)


def gradients(weights):
    """By the reverse pass; by the Hamiltonians; by these with one sample's last costate moved."""
    bump = jnp.zeros((5, 4)).at[2].set(1e-3)
    return jax.grad(PROBLEM.objective)(weights), summed(weights, 0.0), summed(weights, bump)


@pytest.fixture(scope="module")
def laws():
    """Gradients at drawn weights and at solved ones, the sets' violations by each, normals at the end."""

    @jax.jit
    def program(drawn):
        missed, hull = {}, PROBLEM.control_set
        for product, of in PRODUCTS.items():
            weights = of.project(drawn)
            both = jax.tree.map(lambda *g: jnp.stack(g), *gradients(weights))
            missed[product] = jax.vmap(lambda g, of=of, w=weights: of.violation(w, g))(both)
        slope = jax.grad(PROBLEM.objective)
        step = lambda w: hull.project(jax.tree.map(lambda a, g: a - 0.1 * g, w, slope(w)))
        solved = jax.lax.fori_loop(0, 2000, lambda _, w: step(w), hull.project(drawn))
        g = gradients(solved)
        end = BY_LEAF.project(solved), BY_LEAF.normal(solved, g[0]), BY_LEAF.violation(solved, g[1])
        return missed, (solved, *g[1:], *end)

    shapes = jax.eval_shape(PROBLEM.init, jax.eval_shape(lambda: jax.random.key(0)))
    return program(jax.tree.map(lambda a: jnp.asarray(RNG.normal(size=a.shape)), shapes))


@pytest.mark.parametrize("product", PRODUCTS)
def test_stationarity_is_that_of_the_summed_hamiltonians(laws, product):
    missed = laws[0][product]
    reverse, stages, twin = (jax.tree.map(lambda a, i=i: a[i], missed) for i in range(3))
    for name in LEAVES:
        worst = [max(float(jnp.abs(run[name]).max()) for run in m) for m in (reverse, stages)]
        assert abs(worst[0] - worst[1]) <= 1e-13, name
        assert worst[0] > 1e-3, name
    assert_agree(stages, reverse, 1e-13)
    assert (
        disagreement(twin, reverse) > 1e-5
    )  # the twin: with one costate moved it is another number


@pytest.mark.parametrize("name", LEAVES)
def test_at_a_solution_the_normal_is_minus_the_summed_hamiltonians(laws, name):
    """Finite sets too: the price drives their weights to ends of the hull, which lie in them."""
    weights, stages, twin, near, normal, missed = (
        tuple(run[name] for run in tree) for tree in laws[1]
    )
    minus, zero = (lambda t: jax.tree.map(jnp.negative, t)), jax.tree.map(jnp.zeros_like, missed)
    assert_agree(near, weights, 1e-15)
    assert_agree(normal, minus(stages), 1e-13)
    assert_agree(missed, zero, 1e-13)
    assert disagreement(normal, minus(twin)) > 1e-6
    assert (disagreement(normal, zero) > 1e-2) == (name != "free")
