"""Laws that every registered architecture obeys, on real digits: at random weights, and after training.

routes to the costate agree    p_k . dx_k is one number at every depth    gradient = sum over tied stages
"""

import functools
import inspect
import warnings
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.control import backpropagate, costate
from hjcontrol.networks import ARCHITECTURES, AbstractArchitecture, advance, architecture
from hjcontrol.networks.architectures.declaration import patches, rows
from hjcontrol.networks.architectures.registry import HEADINGS, table
from tests.agreement import assert_agree, disagreement

NAMES = list(ARCHITECTURES)
SAMPLES = 6
SMALL = {"width": 4}
X64 = jnp.zeros(()).dtype == jnp.float64


@functools.cache
def trial(name):
    """The problem on a few digits, random weights, weights after training, and what to look at there."""
    digits = hj.data.load("digits")
    features = jnp.asarray(digits.features[:SAMPLES] / 16, jnp.zeros(()).dtype)
    built = architecture(name, 64, 10, **SMALL)
    problem = hj.ControlProblem(
        **built.ensemble(features),
        targets=digits.targets[:SAMPLES],
        terminal=hj.control.softmax_cross_entropy,
        running=hj.control.Ridge(1e-3),
    )
    draw = np.random.default_rng(8)
    like = lambda tree, size: jax.tree.map(
        lambda a: jnp.asarray(size * draw.standard_normal(a.shape), a.dtype), tree
    )
    start = like(jax.eval_shape(problem.init, jax.eval_shape(lambda: jax.random.key(0))), 0.4)
    shift = like(problem.inputs, 1.0)

    @jax.jit
    def observe(weights):
        value, states, p, gradient = backpropagate(problem, weights)
        at = lambda x: eqx.tree_at(lambda q: q.inputs, problem, x)
        _, dx = jax.jvp(lambda x: at(x).rollout(weights), (problem.inputs,), (shift,))
        pairings = [
            jax.tree.reduce(jnp.add, jax.tree.map(lambda a, b: jnp.sum(a * b), p[k], dx[k]))
            for k in range(len(p))
        ]
        after = jax.tree.map(lambda a, g: a - 0.1 * g, weights, gradient)
        found = {"gradient": gradient, "costate": p, "recursion": costate(problem, weights, states)}
        return after, value, states, jnp.stack(pairings), found

    weights, first = start, None
    for _ in range(30):
        trained = weights
        weights, value, states, pairings, found = observe(trained)
        first = value if first is None else first
    return Trial(built, problem, start, trained, first - value, states, pairings, found)


class Trial(NamedTuple):
    """What `trial` finds; `states` and all after it at the trained weights."""

    built: Any
    problem: Any
    start: Any
    trained: Any
    fall: Any
    states: Any
    pairings: Any
    found: Any


@pytest.mark.any_precision
@pytest.mark.parametrize("name", NAMES)
def test_the_costate_is_verified_at_random_weights_and_after_training(name):
    t = trial(name)
    assert t.fall > 0, "training must lower the objective"
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # in 32 bits, once
        for weights in (t.start, t.trained):
            certificate = hj.verify(t.problem, weights)
            assert certificate.verdict == "exact", str(certificate)
            assert max(certificate.agreement.values()) < (1e-11 if X64 else 2e-5), str(certificate)


@pytest.mark.parametrize("name", NAMES)
def test_the_pairing_of_costate_and_tangent_is_conserved(name):
    pairings = trial(name).pairings
    scale = max(1e-3, float(np.abs(pairings).max()))
    assert np.ptp(np.asarray(pairings)) / scale < 1e-12
    assert np.abs(pairings[0]) > 1e-6, "a pairing of nothing proves nothing"


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_the_sum_over_the_stages_that_share_the_weights(name):
    problem, found = trial(name).problem, trial(name).found
    p, gradient = found["recursion"]
    assert_agree(gradient, found["gradient"], 1e-13)
    assert_agree(p, found["costate"], 1e-13)
    for run, own in zip(problem.chain.runs, gradient, strict=True):
        for leaf in jax.tree.leaves(own):
            assert leaf.shape[0] == run.sets


def heads_solve_their_equation(built, x, theta):
    """F_s = H(grad F) + eps tr(G hess F) for F(x, s) = eps log sum_j exp((q.k_j + s |k_j|^2)/eps).

    q = W_Q x + b; G is half the Hessian of the declared H.
    """
    eps, heads, width = built.viscosity, built.heads, built.width
    q, k = theta.attention.query, theta.attention.key
    keys = (x @ k.W.T + k.b[None, :]).reshape(len(x), heads, -1)

    def fronts(token, s):
        asked = (q.W @ token + q.b).reshape(heads, -1)
        z = jnp.einsum("hk,thk->ht", asked, keys) + s * jnp.sum(keys**2, axis=2).T
        return eps * jax.nn.logsumexp(z / eps, axis=1)

    @jax.jit
    def sides(token, theta):
        H = lambda p: built.hamiltonian(x, p, theta)
        p = jax.jacfwd(fronts)(token, 0.0)
        G = jax.hessian(H)(jnp.zeros((heads, width))) / 2
        bent = jax.jacfwd(jax.jacfwd(fronts))(token, 0.0)
        right = H(p) + eps * jnp.einsum("hwhv,hwv->", G, bent)
        return jnp.sum(jax.jacfwd(fronts, argnums=1)(token, 0.0)), right

    assert_agree(*sides(x[0], theta), 1e-10)
    wrong = eqx.tree_at(lambda t: t.attention.query.W, theta, 1.01 * q.W)  # the twin
    left, right = sides(x[0], wrong)
    isotropic = jnp.sum(jax.jacfwd(fronts)(x[0], 0.0) ** 2)
    assert abs(float(isotropic - built.hamiltonian(x, jax.jacfwd(fronts)(x[0], 0.0), theta))) > 1e-3
    assert abs(float(left - right)) > 1e-6 * abs(float(left))


@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_what_its_hamiltonian_says(name):
    """Transport: x + h dH/dp is the step. Viscous: H = |p|^2, and no drift."""
    built, problem, _, weights, _, states, *_ = trial(name)
    r = max(range(len(weights)), key=lambda r: problem.chain.runs[r].length)
    theta = jax.tree.map(lambda a: a[0], weights[r])
    u = jax.tree.map(lambda a: a[0, 1], problem.given[r])
    x = jax.tree.map(lambda a: a[0, 1], states.runs[r])
    if name == "transformer":
        heads_solve_their_equation(built, x, theta)
        return
    slope = jax.jit(jax.grad(lambda p: built.hamiltonian(x, p, theta, u)))
    if float(built.viscosity) > 0 and u is None:
        p = jnp.asarray([0.3, -1.2])
        assert_agree(slope(p), 2 * p, 1e-15)
        return
    p = jnp.ones_like(x)
    if name == "stochastic residual":  # of the mean: without its noise
        u = jnp.zeros_like(u)
    moved = jax.jit(lambda: advance(built.cell, x, theta, u) - x)()
    h = getattr(built, "h", jnp.ones(()))
    if name in ("ssm", "flow"):  # the step is the flow of H, of which Euler sees the first order
        shorten = (lambda c: c.h) if name == "ssm" else (lambda c: c.t1)
        small = lambda h: advance(eqx.tree_at(shorten, built.cell, h), x, theta, u) - x
        ratio = [jax.jit(small)(jnp.asarray(h)) / h - slope(p) for h in (1e-3, 5e-4)]
        assert_agree(ratio[0], 2 * ratio[1], 1e-6)
    else:
        assert_agree(moved, h * slope(p), 1e-14)


def test_declarations_are_complete():
    assert len(table()) == len(ARCHITECTURES)
    for row in table():
        assert len(row) == len(HEADINGS)
        assert all(row)
    for kind in ARCHITECTURES.values():
        assert issubclass(kind, AbstractArchitecture)
        assert not inspect.isabstract(kind)
        assert kind.__doc__


def test_an_architecture_starts_as_its_problem_does():
    built, problem, *_ = trial("gru")
    key = jax.random.key(1)
    assert_agree(built.init(key), problem.init(key), 0.0)


def test_digits_are_read_by_rows_and_by_patches():
    image = jnp.arange(64.0).reshape(1, 8, 8)
    assert rows(64) == (8, 8)
    assert rows(13) == (13, 1)
    assert rows(30) == (6, 5)
    tiles = patches(image.reshape(1, 64))
    assert tiles.shape == (1, 16, 4)
    assert_agree(tiles[0, 0], jnp.asarray([0.0, 1, 8, 9]), 0.0)
    assert_agree(tiles[0, 5], jnp.asarray([18.0, 19, 26, 27]), 0.0)
    assert patches(jnp.zeros((3, 30))).shape == (3, 6, 5)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: architecture("perceptron", 4, 2), "architectures are feedforward, .*'perceptron'"),
        (
            lambda: architecture("gru", 64, 10).ensemble(jnp.zeros((3, 60))),
            r"gru: features of shape \(n, 64\) are needed; found \(3, 60\)",
        ),
    ],
)
def test_wrong_requests_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_wrong_costate_would_be_seen():
    """The twin: the same laws on a costate with one stage's sign turned."""
    pairings, found = trial("gru").pairings, trial("gru").found
    p = found["costate"]
    turned = eqx.tree_at(lambda t: t.runs[0], p, p.runs[0].at[:, 3].multiply(-1))
    assert disagreement(turned, found["recursion"][0]) > 1e-3
    assert float(np.abs(pairings[0])) > 1e-6
