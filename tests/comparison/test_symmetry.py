"""Relabelling hidden units: the network is the same function, and the match undoes it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.comparison.symmetry import Labelling, groups, match, relabel
from hjcontrol.networks import Dense, Residual, lift, readout


def make(activation=jnp.tanh, residual=True):
    x = jax.random.normal(jax.random.key(0), (25, 3))
    if residual:
        hidden = [Residual(Dense(5, 5, activation), 0.3)] * 3
    else:
        hidden = [Dense(5, 4, activation), Dense(4, 6, activation), Dense(6, 5, activation)]
    return hj.ControlProblem(
        [lift(3, 5), *hidden, readout(5, 2)],
        x,
        jnp.arange(25) % 2,
        terminal=hj.control.softmax_cross_entropy,
        running=hj.control.Ridge(1e-2),
    )


def scramble(problem, weights, seed):
    rng = np.random.default_rng(seed)
    states = problem.rollout(weights)
    labels = [Labelling(np.arange(np.shape(x)[1]), np.ones(np.shape(x)[1])) for x in states]
    for group in groups(problem.chain):
        size = np.shape(states[group.depths[0]])[1]
        signs = rng.choice([-1.0, 1.0], size) if group.odd else np.ones(size)
        one = Labelling(rng.permutation(size), signs)
        for k in group.depths:
            labels[k] = one
    return relabel(problem.chain, weights, labels)


CASES = [
    (jnp.tanh, True, [((1, 2, 3, 4), True)]),
    (jax.nn.relu, True, [((1, 2, 3, 4), False)]),
    (jnp.tanh, False, [((1,), True), ((2,), True), ((3,), True), ((4,), True)]),
    (jax.nn.relu, False, [((1,), True), ((2,), False), ((3,), False), ((4,), False)]),
]


@pytest.mark.parametrize(("activation", "residual", "expected"), CASES)
def test_groups_follow_from_the_declarations(activation, residual, expected):
    assert [tuple(g) for g in groups(make(activation, residual).chain)] == expected


@pytest.mark.parametrize(("activation", "residual"), [c[:2] for c in CASES])
@pytest.mark.parametrize("seed", range(3))
def test_scrambled_network_is_the_same_function_and_is_matched(activation, residual, seed):
    problem = make(activation, residual)
    weights = problem.init(jax.random.key(seed))
    weights = jax.tree.map(lambda a: a + 0.3, weights)  # no relu dead on the whole ensemble
    other = scramble(problem, weights, seed)
    objective, rollout = (eqx.filter_jit(f) for f in (problem.objective, problem.rollout))
    np.testing.assert_allclose(objective(other), objective(weights), rtol=1e-14)
    a, b = rollout(weights), rollout(other)
    np.testing.assert_allclose(a.final, b.final, atol=1e-13)
    back = relabel(problem.chain, other, match(problem, a, b))
    for u, v in zip(jax.tree.leaves(weights), jax.tree.leaves(back), strict=True):
        np.testing.assert_array_equal(u, v)


def test_a_wrong_sign_is_not_a_symmetry_of_relu():
    problem = make(jax.nn.relu, residual=False)
    weights = problem.init(jax.random.key(0))
    labels = [Labelling(np.arange(n), np.ones(n)) for n in (3, 5, 4, 6, 5, 2)]
    labels[2] = Labelling(np.arange(4), np.array([-1.0, 1, 1, 1]))
    other = relabel(problem.chain, weights, labels)
    assert abs(problem.objective(other) - problem.objective(weights)) > 1e-4


def test_a_function_stage_pins_its_states():
    x = jnp.ones((4, 3))
    problem = hj.ControlProblem(
        [lift(3, 5), lambda x: x[::-1], readout(5, 1)],
        x,
        x[:, :1],
        terminal=hj.control.least_squares,
    )
    assert groups(problem.chain) == []
