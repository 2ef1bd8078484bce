"""Laws of composition: a chain is its stages one after another, however they are stored."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.networks import (
    Chain,
    Dense,
    FunctionStage,
    ModuleStage,
    Residual,
    Tied,
    as_stage,
    lift,
    readout,
)
from tests.agreement import assert_agree
from tests.networks.pieces import Bilinear, halve, matrix, mixed, residual, scale

X = jnp.array([0.3, -1.2, 0.8])
SPEC = jax.ShapeDtypeStruct((3,), jnp.result_type(float))


def unrolled(chain, weights, x):
    """The same network as a Python loop."""
    states = [x]
    for k, theta in enumerate(chain.unstack(weights)):
        states.append(chain[k].step(states[-1], theta))
    return states


@pytest.mark.any_precision
@pytest.mark.smoke
@pytest.mark.parametrize("stages", [mixed(), residual(6)], ids=["mixed", "residual"])
def test_scanned_runs_equal_the_unrolled_loop(stages, key):
    chain = Chain(stages, SPEC)
    weights = chain.init(key)
    states = jax.jit(lambda w: unrolled(chain, w, X))(weights)
    tol = 1e-15 if X.dtype == jnp.float64 else 1e-6
    assert_agree(jax.jit(lambda w: chain(w, X))(weights), states[-1], tol)
    runs, final = jax.jit(lambda w: chain.states(w, X))(weights)
    assert_agree(final, states[-1], tol)
    flat = [x for run, xs in zip(chain.runs, runs, strict=True) for x in xs[: run.length]]
    assert_agree(flat, states[:-1], tol)


@pytest.mark.parametrize("stages", [mixed(), residual(6)], ids=["mixed", "residual"])
def test_unstack_and_stack_are_inverse(stages, key):
    chain = Chain(stages, SPEC)
    weights = chain.init(key)
    assert len(chain.unstack(weights)) == len(chain) == len(stages)
    assert_agree(chain.stack(chain.unstack(weights)), weights, 0.0)


def test_stages_with_differing_steps_are_one_run(key):
    steps = [0.1, 0.2, 0.4, 0.8]
    chain = Chain([Residual(Dense(3, 3), h) for h in steps], SPEC)
    assert [run.length for run in chain.runs] == [4]
    assert_agree(chain.runs[0].stage.h, jnp.array(steps), 0.0)
    assert [float(chain[k].h) for k in range(4)] == steps
    weights = chain.init(key)
    assert_agree(jax.jit(lambda w: chain(w, X))(weights), unrolled(chain, weights, X)[-1], 1e-15)


@pytest.mark.parametrize(
    ("stages", "lengths"),
    [
        (residual(5), [1, 5, 1]),
        ([Dense(3, 3), Dense(3, 3), Dense(3, 3, jnp.sin)], [2, 1]),
        ([Dense(3, 3), halve, halve, Dense(3, 3)], [1, 2, 1]),
        ([(scale, {"gain": X, "bias": X})] * 3, [3]),
        ([Bilinear(matrix(3, 0)), Bilinear(matrix(3, 1)), Bilinear(matrix(3, 2), "other")], [2, 1]),
        ([lambda x: x + 1, lambda x: x + 2], [1, 1]),
        ([Dense(3, 4), Dense(4, 4), Dense(4, 4), Dense(4, 3)], [1, 2, 1]),
        ([Dense(3, 3)], [1]),
    ],
)
def test_what_forms_a_run(stages, lengths):
    assert [run.length for run in Chain(stages, SPEC).runs] == lengths


def test_stacked_modules_keep_their_own_weights(key):
    modules = [Bilinear(matrix(3, seed)) for seed in range(3)]
    chain = Chain(modules, SPEC)
    weights = chain.init(key)
    for theta, module in zip(chain.unstack(weights), modules, strict=True):
        assert_agree(theta.A, module.A, 0.0)
    want = X
    for module in modules:
        want = module(want)
    assert_agree(chain(weights, X), want, 1e-15)


def test_a_chain_is_a_semigroup_in_depth(key):
    chain = Chain(residual(4), SPEC)
    thetas = chain.unstack(chain.init(key))
    for cut in (1, 3, 5):
        first = Chain([chain[k] for k in range(cut)], SPEC)
        middle = first(first.stack(thetas[:cut]), X)
        second = Chain([chain[k] for k in range(cut, 6)], middle)
        assert_agree(
            second(second.stack(thetas[cut:]), middle), chain(chain.stack(thetas), X), 1e-15
        )


def test_the_start_depends_on_the_key_alone(key):
    chain = Chain(residual(3), SPEC)
    assert_agree(chain.init(key), Chain(residual(3), SPEC).init(key), 0.0)
    other = chain.init(jax.random.key(1))
    assert not np.allclose(chain.init(key)[1].W, other[1].W)
    W = chain.init(key)[1].W
    assert not np.allclose(W[0], W[1]), "stages of one run must draw different weights"


def test_states_may_be_pytrees(key):
    def swing(x, theta):
        return {"q": x["q"] + 0.1 * x["p"], "p": x["p"] - 0.1 * theta * x["q"]}

    state = {"q": jnp.ones(2), "p": jnp.zeros(2)}
    chain = Chain([(swing, jnp.ones(2))] * 5, state)
    assert [run.length for run in chain.runs] == [5]
    weights = chain.init(key)
    assert_agree(chain(weights, state), unrolled(chain, weights, state)[-1], 1e-15)


# ------------------------------------------------------------------------------------ pieces


def test_pieces_become_stages(key):
    assert isinstance(as_stage(Bilinear(matrix(3))), ModuleStage)
    assert isinstance(as_stage(halve), FunctionStage)
    assert as_stage(halve).init(key) == ()
    pair = as_stage((scale, {"gain": 2.0, "bias": 0.0}))
    assert_agree(pair.step(X, pair.init(key)), 2 * jnp.sin(X), 1e-15)
    stage = Dense(3, 2)
    assert as_stage(stage) is stage


@pytest.mark.any_precision
def test_weights_of_a_pair_are_no_whole_numbers():
    for theta in (jnp.zeros(2, int), {"u": jnp.zeros(1), "on": np.array([True])}, 3):
        with pytest.raises(ValueError, match="must be floating numbers"):
            as_stage((lambda x, u: x, theta))
        with pytest.raises(ValueError, match="must be floating numbers"):
            as_stage((lambda x, u, t: x, theta, "forcing"))


def test_an_affine_stage_is_what_follows_its_affine_part(key):
    for stage in (Dense(3, 2), Residual(Dense(3, 3), 0.3), lift(3, 7), readout(3, 2)):
        theta = stage.init(key)
        assert stage.affine
        assert_agree(stage.step(X, theta), stage.after(X, theta.W @ X + theta.b), 1e-6)


@pytest.mark.parametrize("activation", [jnp.tanh, jnp.sin, jax.nn.softplus, jax.nn.relu])
def test_relabelling_hidden_units_leaves_the_network_unchanged(activation, key):
    """Permute (and flip, where the activation is odd) the hidden units of a plain layer."""
    first, last = Dense(3, 5, activation), readout(5, 2)
    chain = Chain([first, last], SPEC)
    a, b = chain.unstack(chain.init(key))
    symmetry = first.symmetry()
    signs = jnp.array([1.0, -1.0, -1.0, 1.0, -1.0]) if symmetry.odd else jnp.ones(5)
    assert symmetry.odd == (activation in (jnp.tanh, jnp.sin))
    hidden = (jnp.array([3, 0, 4, 1, 2]), signs)
    keep = lambda n: (jnp.arange(n), jnp.ones(n))
    moved = chain.stack([first.relabel(a, keep(3), hidden), last.relabel(b, hidden, keep(2))])
    assert_agree(chain(moved, X), chain(chain.stack([a, b]), X), 1e-14)


def test_relabelling_a_residual_stage_is_tied(key):
    stages = [lift(3, 4), Residual(Dense(4, 4), 0.5), readout(4, 2)]
    chain = Chain(stages, SPEC)
    a, b, c = chain.unstack(chain.init(key))
    assert stages[1].symmetry().tied
    hidden = (jnp.array([2, 0, 3, 1]), jnp.array([1.0, -1.0, 1.0, -1.0]))
    keep = lambda n: (jnp.arange(n), jnp.ones(n))
    moved = [
        stages[0].relabel(a, keep(3), hidden),
        stages[1].relabel(b, hidden, hidden),
        stages[2].relabel(c, hidden, keep(2)),
    ]
    assert_agree(chain(chain.stack(moved), X), chain(chain.stack([a, b, c]), X), 1e-14)


# ------------------------------------------------------------------------------------ errors


class Silent(eqx.Module):
    """A module that cannot be called."""

    A: jax.Array


@pytest.mark.any_precision
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Chain([], SPEC), "at least one stage is needed; found none"),
        (
            lambda: Chain([lift(3, 4), Dense(5, 5)], SPEC),
            r"stage 1 \(Dense\) does not accept its state of shape \(4,\)",
        ),
        (lambda: Chain([3], SPEC), "found int"),
        (lambda: Dense(0, 3), "`in_size` must be >= 1; found 0"),
        (lambda: Dense(3, 2.5), r"`out_size` must be a whole number; found 2\.5"),
        (lambda: Chain(residual(2), SPEC).stack([()]), "one entry a stage is needed, 4; found 1"),
        (lambda: as_stage(Silent(X)), "Silent defines no __call__"),
    ],
)
def test_wrong_pieces_are_refused_at_once(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_stage_index_out_of_range_is_an_index_error():
    chain = Chain(residual(2), SPEC)
    with pytest.raises(IndexError):
        chain[4]


@pytest.mark.any_precision
@pytest.mark.parametrize("reverse", [False, True])
def test_fold_goes_through_all_stages_in_order_and_hands_every_run_its_own(reverse):
    """A lone stage, three equal ones, two tied: counted along depth and against it."""
    stages = [Dense(2, 3), *[Dense(3, 3)] * 3, Tied(Dense(3, 3, jnp.sin), 2), Dense(3, 1)]
    problem = hj.ControlProblem(stages, jnp.ones((4, 2)), terminal=jnp.sum)
    weights, depth = problem.init(jax.random.key(0)), len(problem.chain)
    states = problem.rollout(weights).runs

    def body(r, count, stage, theta, u, x):
        assert u is None
        assert theta.W.shape == (stage.out_size, stage.in_size)
        assert x.shape == (4, stage.in_size)  # the whole ensemble's
        return count + 1, (count, jnp.asarray(r), stage.step(x[0], theta))

    count, outs = problem.fold(body, jnp.asarray(0), weights, states, reverse=reverse)
    counts, runs = (jnp.concatenate([out[i] for out in outs]) for i in (0, 1))
    assert int(count) == depth
    assert counts.tolist() == (list(range(depth))[::-1] if reverse else list(range(depth)))
    assert runs.tolist() == [0, 1, 1, 1, 2, 2, 3]
    for here, (*_, after) in enumerate(outs[:-1]):
        assert np.array_equal(after[-1], states[here + 1][0, 0])
