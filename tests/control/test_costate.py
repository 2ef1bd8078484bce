r"""Laws of the costate: `p_k = +dJ/dx_k`, by every discrete route, with one sign.

p_K = (1/n) dPhi/dx      p_k = dH_k/dx      dJ/dtheta_k = dH_k/dtheta      x_{k+1} = dH_k/dp
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.control import (
    backpropagate,
    costate,
    hamiltonian,
    terminal_costate,
    value_and_gradient,
)
from hjcontrol.control.hamiltonians import inner
from tests.agreement import assert_agree, disagreement
from tests.control.problems import PROBLEMS, N, classifier, direction, perturbed, solved

NAMES = list(PROBLEMS)


def richardson(f, h=1e-3):
    """Derivative of `f` at 0 by central differences, extrapolated twice."""
    table = [(f(s) - f(-s)) / (2 * s) for s in (h, h / 2, h / 4)]
    first = [(4 * b - a) / 3 for a, b in itertools.pairwise(table)]
    return (16 * first[1] - first[0]) / 15


def along(tree, v, s):
    return jax.tree.map(lambda a, b: a + s * b, tree, v)


@pytest.mark.parametrize("name", NAMES)
def test_recursion_equals_backpropagation(name):
    problem, weights, states, p, gradient = solved(name)
    by_recursion, slopes = jax.jit(lambda w: costate(problem, w))(weights)
    assert_agree(by_recursion, p, 1e-14)
    assert_agree(slopes, gradient, 1e-14)
    value, g = jax.jit(lambda w: value_and_gradient(problem, w))(weights)
    assert_agree(g, gradient, 1e-14)
    assert_agree(states, jax.jit(lambda w: problem.rollout(w))(weights), 1e-14)
    assert_agree(p.final, terminal_costate(problem, states.final), 1e-15)
    assert jnp.isfinite(value)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_equals_differences_of_the_objective(name):
    problem, weights, _, _, gradient = solved(name)
    J = jax.jit(lambda w: problem.objective(w))
    for seed in range(3):
        v = direction(weights, seed)
        slope = richardson(lambda s, v=v: J(along(weights, v, s)))
        assert_agree(inner(gradient, v), slope, "differences")


@pytest.mark.parametrize("name", NAMES)
def test_costate_equals_differences_in_a_shift_of_the_states(name):
    problem, weights, _, p, _ = solved(name)
    shift = direction(p)

    @jax.jit
    def J(s):
        moved = jax.tree.map(lambda v: s * v, (shift.runs, shift.final))
        cost = lambda x, y, d: problem.sample_cost(weights, x, y, d)[0]
        return jnp.mean(jax.vmap(cost)(problem.inputs, problem.targets, moved))

    assert_agree(inner(p, shift), richardson(J), "differences")


@pytest.mark.parametrize("name", NAMES)
def test_the_hamiltonian_generates_states_costates_and_gradient(name):
    problem, weights, states, p, gradient = solved(name)
    thetas, slopes = problem.chain.unstack(weights), problem.chain.unstack(gradient)
    for k in range(len(problem.chain)):
        H = lambda x, q, th, k=k: hamiltonian(problem, k, x, q, th)
        dx, dp, dtheta = jax.jit(jax.grad(H, argnums=(0, 1, 2)))(states[k], p[k + 1], thetas[k])
        assert_agree(dp, states[k + 1], 1e-14)
        assert_agree(dx, p[k], 1e-13)
        assert_agree(dtheta, slopes[k], 1e-13)


def tangents(problem, weights):
    """The tangent flow of a random change of the inputs, at every depth."""
    moved = jax.tree.map(lambda a: direction(a), problem.inputs)

    def rollout(x):
        runs, final = jax.vmap(lambda a: problem.chain.states(weights, a))(x)
        return hj.control.Trajectory(runs, final)

    return jax.jit(lambda: jax.jvp(rollout, (problem.inputs,), (moved,))[1])()


def test_the_pairing_with_the_tangent_flow_is_conserved():
    problem, weights, _, p, _ = solved("no running cost")
    dx = tangents(problem, weights)
    pairings = np.array([inner(a, b) for a, b in zip(p, dx, strict=True)])
    assert abs(pairings[0]) > 1e-3
    assert np.ptp(pairings) <= 1e-15 * abs(pairings[0]) * 10


def test_a_running_cost_of_the_state_breaks_the_conservation():
    problem, weights, _, p, _ = solved("regression")
    dx = tangents(problem, weights)
    pairings = np.array([inner(a, b) for a, b in zip(p, dx, strict=True)])
    assert np.ptp(pairings) > 1e-3


def test_tied_weights_have_the_sum_of_the_stages_gradients():
    problem, _, _, _, _ = solved("oscillator")
    one = perturbed(jax.tree.map(lambda a: a[0], problem.init(jax.random.key(0))[0]))
    repeat = lambda th: (jax.tree.map(lambda a: jnp.stack([a] * len(problem.chain)), th),)
    tied = jax.jit(jax.grad(lambda th: problem.objective(repeat(th))))(one)
    _, slopes = jax.jit(lambda w: costate(problem, w))(repeat(one))
    assert_agree(tied, jax.tree.map(lambda a: a.sum(0), slopes[0]), 1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_the_maximum_principles_sign_does_not_pass(name):
    problem, weights, states, p, gradient = solved(name)
    k = 1
    flipped = jax.tree.map(jnp.negative, p[k + 1])
    theta = problem.chain.unstack(weights)[k]
    slope = jax.jit(jax.grad(lambda th: hamiltonian(problem, k, states[k], flipped, th)))(theta)
    assert disagreement(slope, problem.chain.unstack(gradient)[k]) > 1e-4


@pytest.mark.any_precision
@pytest.mark.smoke
def test_routes_agree_in_any_precision():
    problem = classifier()
    weights = problem.init(jax.random.key(3))
    _, states, p, gradient = jax.jit(lambda w: backpropagate(problem, w))(weights)
    by_recursion, slopes = jax.jit(lambda w: costate(problem, w))(weights)
    kind = "float32" if problem.dtype == jnp.float32 else "exact"
    assert_agree(by_recursion, p, kind)
    assert_agree(slopes, gradient, kind)
    assert len(states) == len(p) == len(problem.chain) + 1
    assert all(a.shape[0] == N for a in jax.tree.leaves(p))
