"""Compile time does not grow with depth: the traced programs of 8 and 256 stages are one size.

Not timed: a clock on a busy machine proves nothing, the number of equations does.
"""

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr

import hjcontrol as hj
from hjcontrol.networks import Dense, Residual, lift, readout
from tests.networks.pieces import Bilinear, matrix, scale


def equations(jaxpr):
    """Equations of a program, those of its inner programs included."""
    inner = jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
    count = 0
    for eqn in inner.eqns:
        count += 1
        for value in eqn.params.values():
            for leaf in value if isinstance(value, (tuple, list)) else (value,):
                if isinstance(leaf, (ClosedJaxpr, Jaxpr)):
                    count += equations(leaf)
    return count


def network(depth, kind):
    middle = {
        "residual": [Residual(Dense(4, 4), 1.0)] * depth,
        "differing steps": [Residual(Dense(4, 4), 1.0 / (k + 1)) for k in range(depth)],
        "module": [Bilinear(matrix(4, k)) for k in range(depth)],
        "function": [(scale, {"gain": jnp.ones(4), "bias": jnp.ones(4)})] * depth,
    }[kind]
    x, y = jnp.ones((3, 2)), jnp.zeros(3, int)
    return hj.ControlProblem(
        [lift(2, 4), *middle, readout(4, 3)],
        x,
        y,
        terminal=hj.control.softmax_cross_entropy,
        running=hj.control.Ridge(1e-3),
    )


@pytest.mark.any_precision
@pytest.mark.parametrize("kind", ["residual", "differing steps", "module", "function"])
def test_program_size_does_not_depend_on_depth(kind):
    sizes = []
    for depth in (8, 256):
        problem = network(depth, kind)
        weights = jax.eval_shape(problem.init, jax.eval_shape(lambda: jax.random.key(0)))
        programs = {
            "objective": problem.objective,
            "gradient": jax.grad(problem.objective),
            "costate": lambda w, p=problem: hj.control.costate(p, w),
            "backpropagation": lambda w, p=problem: hj.control.backpropagate(p, w),
            "curvature": lambda w, p=problem: hj.control.curvature(p, w)(w),
        }
        sizes.append({name: equations(jax.make_jaxpr(f)(weights)) for name, f in programs.items()})
    assert sizes[0] == sizes[1]
    assert sizes[0]["gradient"] > sizes[0]["objective"] > 10


def test_an_unrolled_network_does_not_pass():
    chain = network(8, "residual").chain
    weights = chain.init(jax.random.key(0))

    def loop(weights, depth):
        x = jnp.ones(2)
        for k, theta in enumerate(chain.unstack(weights)[:depth]):
            x = chain[k].step(x, theta)
        return x

    short, long = (equations(jax.make_jaxpr(lambda w, d=d: loop(w, d))(weights)) for d in (2, 8))
    assert long > short
