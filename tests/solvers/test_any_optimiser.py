"""Transformations of optax that look at a leaf's shape do with a model what they do in a loop by hand.

Runs of equal layers are stacked inside; a mask by rank then took biases for matrices, a norm of one layer
was that of several, and Muon took no matrix for one.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hjcontrol as hj
from hjcontrol.solvers import by_layer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 3))
Y = np.sin(X[:, :2])
MATRICES = lambda tree: jax.tree.map(lambda a: a.ndim > 1, tree)
OPTIMISERS = {
    "decay of matrices": optax.adamw(1e-2, weight_decay=0.5, mask=MATRICES),
    "lamb": optax.lamb(1e-2),
    "clipping by units": optax.chain(optax.adaptive_grad_clip(0.01), optax.sgd(0.1)),
    "adafactor": optax.adafactor(1e-2, min_dim_size_to_factor=2),
    "centred": optax.chain(optax.centralize(), optax.sgd(0.1)),
    "muon": optax.contrib.muon(1e-2),
    "noise": optax.noisy_sgd(1e-2, key=0),
    "rates by rank": optax.multi_transform(
        {True: optax.sgd(jnp.asarray(0.1)), False: optax.sgd(jnp.asarray(0.2))}, MATRICES
    ),
}


def mlp():
    return eqx.nn.MLP(3, 2, 3, 3, activation=jnp.tanh, key=jax.random.key(1))


def pieces():
    keys = jax.random.split(jax.random.key(2), 3)
    layers = [eqx.nn.Linear(3, size, key=key) for size, key in zip((3, 3, 2), keys, strict=True)]
    return [layers[0], jnp.tanh, layers[1], layers[2]]


def linear():
    return (lambda p, x: jnp.tanh(x @ p["a"]) @ p["b"] + p["c"], PARAMS)


PARAMS = {"a": jnp.full((3, 3), 0.3), "b": 0.1 * jnp.arange(6.0).reshape(3, 2), "c": jnp.ones(2)}


def by_hand(model, optimiser, call, steps=4):
    weights, rest = eqx.partition(model, eqx.is_inexact_array)

    @jax.jit
    def step(w, state):
        def loss(w):
            out = jax.vmap(lambda x: call(eqx.combine(w, rest), x))(X)
            return jnp.mean(0.5 * jnp.sum((out - Y) ** 2, axis=1))

        change, state = optimiser.update(jax.grad(loss)(w), state, w)
        return optax.apply_updates(w, change), state

    state = optimiser.init(weights)
    for _ in range(steps):
        weights, state = step(weights, state)
    return weights


def apart(a, b):
    a, b = (jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array)) for tree in (a, b))
    return max(float(jnp.abs(u - v).max()) for u, v in zip(a, b, strict=True))


def trained(model, optimiser, steps=4):
    problem = hj.ControlProblem(model, X, Y, terminal=hj.least_squares)
    return hj.solve(problem, hj.Gradient(optimiser), max_steps=steps)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_model_is_trained_as_by_hand(name):
    found = trained(mlp(), OPTIMISERS[name])
    assert found.problem.chain.runs[0].length == 3  # stacked inside
    right = by_hand(mlp(), OPTIMISERS[name], lambda m, x: m(x))
    assert apart(found.model, right) <= 1e-13
    assert apart(found.model, by_hand(mlp(), optax.sgd(1e-2), lambda m, x: m(x))) > 1e-4


def test_lists_of_layers_and_pairs_are_seen_so_too():
    mask = OPTIMISERS["decay of matrices"]
    chain = lambda m, x: m[3](m[2](jnp.tanh(m[0](x))))
    found = trained(pieces(), mask).model
    assert apart(found, by_hand(pieces(), mask, chain)) <= 1e-13
    decayed = optax.adamw(1e-2, weight_decay=0.5)  # the twin: of the biases too
    assert apart(found, by_hand(pieces(), decayed, chain)) > 1e-4
    apply, params = trained(linear(), OPTIMISERS["lamb"]).model
    assert apart(params, by_hand(PARAMS, OPTIMISERS["lamb"], apply)) <= 1e-13


def test_a_search_goes_along_the_same_line():
    lbfgs = trained(mlp(), optax.lbfgs(), steps=8)
    value = lambda w: hj.ControlProblem(mlp(), X, Y, terminal=hj.least_squares).objective(w)
    assert lbfgs.stats["num_evals"] >= 8
    assert float(jnp.abs(value(lbfgs.weights) - lbfgs.objective)) <= 1e-14
    assert lbfgs.objective < 0.5 * lbfgs.history.objective[0]


def test_stages_of_this_library_are_seen_as_they_are_stacked():
    stages = [hj.lift(3, 3), *[hj.Residual(hj.Dense(3, 3), 0.5)] * 2, hj.readout(3, 2)]
    problem = hj.ControlProblem(stages, X, Y, terminal=hj.least_squares)
    shapes = []
    looks = optax.stateless(lambda g, p: shapes.append(jax.tree.map(jnp.shape, g)) or g)
    hj.solve(problem, hj.Gradient(looks), key=jax.random.key(0), max_steps=1)
    assert shapes[0][1].W == (2, 3, 3)


def test_a_mask_that_is_shaped_like_the_model_is_refused():
    mask = jax.tree.map(lambda a: a.ndim > 1, eqx.filter(mlp(), eqx.is_inexact_array))
    with pytest.raises(
        ValueError, match=r"`optimiser` does not begin at these weights.*functions of"
    ):
        trained(mlp(), optax.adamw(1e-2, mask=mask))


ELEMENTWISE = {
    "adam": optax.adam(optax.cosine_decay_schedule(1e-2, 100)),
    "decay of all": optax.adamw(1e-2),
    "momentum": optax.chain(optax.clip(1.0), optax.sgd(0.1, momentum=0.9, nesterov=True)),
    "lion": optax.lion(1e-2),
}


@pytest.mark.parametrize("name", [*ELEMENTWISE, *OPTIMISERS])
def test_only_what_treats_each_number_by_itself_is_handed_the_stack(name):
    problem = hj.ControlProblem(mlp(), X, Y, terminal=hj.least_squares)
    weights = problem.init(jax.random.key(0))
    view = by_layer.seen((ELEMENTWISE | OPTIMISERS)[name], problem, weights)
    assert (view is weights) == (name in ELEMENTWISE)
    np.testing.assert_array_equal(*map(np.hstack, map(flat, (by_layer.unseen(view), weights))))


def flat(weights):
    return [a.reshape(-1) for a in jax.tree.leaves(weights)]
