"""J and c J: the same steps, the same result. Nothing is done before it began, whatever its unit."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hjcontrol as hj
from hjcontrol._ground.results import RESULTS
from hjcontrol.control import Box, ControlProblem, Ridge, least_squares
from hjcontrol.networks import Dense, Residual
from hjcontrol.solvers import Direct, Gradient, Newton
from hjcontrol.solvers.msa import MSA
from hjcontrol.solvers.riccati import Riccati
from hjcontrol.solvers.shooting import Shooting

KEY = jax.random.key(0)
X, Y = (jax.random.normal(jax.random.key(k), (12, 2)) for k in (0, 1))
SCALES = (1e-8, 1.0, 1e8)


class Times(eqx.Module):
    """A cost times c, which is a leaf: one program serves every unit."""

    cost: object
    c: jax.Array = eqx.field(converter=jnp.asarray)

    def __call__(self, *of):
        return self.c * self.cost(*of)


def network(c: float, depth: int = 2, bounded: bool = False) -> ControlProblem:
    sets = {"control_set": Box(-0.2, 0.2)} if bounded else {}
    stages = [Residual(Dense(2, 2), 0.25)] * depth
    terminal = Times(least_squares, c)
    return ControlProblem(stages, X, Y, terminal=terminal, running=Ridge(1e-2 * c), **sets)


def additive(c: float) -> ControlProblem:
    """Controls that enter additively, each paid for: a costate passes forward."""
    drift = hj.networks.as_stage((lambda x, th: jnp.sin(x) + th, jnp.zeros(2)))
    return ControlProblem(
        [Residual(drift, 0.25)] * 4,
        X[:1],
        Y[:1],
        terminal=Times(least_squares, c),
        running=Ridge(c),
    )


METHODS = {
    "newton": (Newton(tol=1e-11), network),
    "newton at once": (Newton(tol=1e-11, switch=1.0), network),
    "newton, bounds": (Newton(tol=1e-11), lambda c: network(c, bounded=True)),
    "ddp": (Riccati(curvature="ddp"), network),
    "riccati": (Riccati(), additive),
    "msa": (MSA(), network),
    "msa, closed": (MSA(), additive),
    "shooting": (Shooting(), additive),
    "multiple shooting": (Shooting(segments=2), additive),
    "direct": (Direct(), network),
    "direct, bounds": (Direct(), lambda c: network(c, bounded=True)),
    "single": (Direct(transcription="single"), network),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_multiple_of_the_cost_takes_the_same_steps(name):
    method, problem = METHODS[name]
    found = [hj.solve(problem(c), method, key=KEY, max_steps=200) for c in SCALES]
    first = found[1]
    assert first.stats["num_steps"] > 0
    for c, solution in zip(SCALES, found, strict=True):
        assert bool(solution.result == first.result)
        assert solution.stats["num_steps"] == first.stats["num_steps"]
        np.testing.assert_allclose(solution.objective / c, first.objective, rtol=1e-12)


def test_without_a_unit_it_is_another_solve():
    """The twin: the same tolerance, taken as an absolute number."""
    absolute = type("Absolute", (Newton,), {"measuring": lambda self, units: self})
    found = [
        hj.solve(network(c), absolute(tol=1e-6, switch=1.0), key=KEY, max_steps=100) for c in SCALES
    ]
    assert found[0].stats["num_steps"] == 0  # done before it began
    assert bool(found[0].result == RESULTS.successful)
    assert found[1].stats["num_steps"] > 1


def parabola(c: float) -> ControlProblem:
    """J = c |theta - 3|^2."""
    stage = (lambda x, th: x + th, jnp.zeros(3))
    return ControlProblem(
        [stage], jnp.zeros((1, 3)), terminal=lambda x: c * jnp.sum((x - 3.0) ** 2)
    )


@pytest.mark.parametrize("c", [1e-12, 1e-7, 1e-4, 1.0, 1e7])
@pytest.mark.parametrize("method", [Gradient(optax.lbfgs()), Newton()], ids=["gradient", "newton"])
def test_a_small_cost_is_not_done_at_once(method, c):
    problem = parabola(c)
    solution = hj.solve(problem, method, init=problem.init(KEY))
    assert bool(solution.result == RESULTS.successful)
    assert solution.stats["num_steps"] > 0
    np.testing.assert_allclose(solution.weights[0], 3.0, rtol=2e-4)


def test_a_solution_is_continued_in_no_steps():
    """The unit does not vanish with the gradient: what is solved stays solved, at every scale."""
    for c in SCALES:
        solution = hj.solve(network(c), Newton(tol=1e-9), key=KEY)
        again = hj.solve(network(c), Newton(tol=1e-9), init=solution)
        assert bool(again.result == RESULTS.successful)
        assert again.stats["num_steps"] == 0


def test_the_price_is_two_gradients_at_the_start():
    """Not one a step: the loop's program is the same but for a product with the unit."""
    problem = network(1.0)
    asked = []

    def counted(x, y):
        jax.debug.callback(lambda: asked.append(1))
        return least_squares(x, y)

    counting = eqx.tree_at(lambda p: p.terminal, problem, counted, is_leaf=callable)
    counts = []
    for steps in (0, 3, 6):
        asked.clear()
        hj.solve(counting, Gradient(optax.sgd(1e-2), tol=0.0), key=KEY, max_steps=steps)
        jax.effects_barrier()
        counts.append(len(asked))
    assert counts[2] - counts[1] == counts[1] - counts[0]
