"""Routes agree where the mathematics says so, and disagree where it is broken."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.control import (
    ControlProblem,
    Ridge,
    backpropagate,
    least_squares,
    softmax_cross_entropy,
)
from hjcontrol.networks import Dense, Residual, lift, readout
from tests.verification.planted import affine, network

ALL = ("backprop", "pairing", "recursion", "finite_difference")


def digits_like(activation=jnp.tanh, n=7):
    draw = np.random.default_rng(0)
    chain = [lift(5, 4), *(Residual(Dense(4, 4, activation), 0.3) for _ in range(3)), readout(4, 3)]
    return ControlProblem(
        chain,
        jnp.asarray(draw.normal(size=(n, 5))),
        jnp.asarray(draw.integers(0, 3, size=n)),
        terminal=softmax_cross_entropy,
        running=Ridge(1e-3),
    )


@pytest.fixture(scope="module")
def problem():
    return digits_like()


@pytest.fixture(scope="module")
def weights(problem):
    return problem.init(jax.random.key(1))


@pytest.fixture(scope="module")
def swept(problem, weights):
    return eqx.filter_jit(backpropagate)(problem, weights)[1:]


def test_every_route_agrees(problem, weights):
    found = hj.verify(problem, weights, routes=ALL)
    assert found.verdict == "exact"
    assert set(found.agreement) == {"backprop|recursion", "backprop|pairing"}
    assert max(found.agreement.values()) < 1e-12
    assert found.finite_difference < 1e-8
    assert found.worst is not None
    for table in found.per_stage.values():
        assert table["weights"].shape == (5,)
        assert table["states"] is None or table["states"].shape == (6,)
    assert 5 < len(str(found).splitlines()) <= 15


def test_recursion_is_backprop_with_custom_rules():
    x, y = np.random.default_rng(0).normal(size=(2, 4, 5))
    found = hj.verify(
        network(jax.random.key(0), 4, 5),
        inputs=x,
        targets=y,
        cost=least_squares,
        routes=("backprop", "recursion"),
    )
    assert found.verdict == "exact"
    assert found.agreement["backprop|recursion"] < 1e-12


@pytest.mark.parametrize("k", [0, 2, 4, 5])
def test_a_perturbed_costate_is_refuted_where_it_is_bent(problem, weights, swept, k):
    """Multipliers bent by 1e-4 in one coordinate at one depth; by 1e-7 they pass for a solver's."""
    _, costates, _ = swept

    def bent(by):
        nudge = lambda a: a.at[..., 0].mul(1 + by)
        if k == 5:
            return eqx.tree_at(lambda t: t.final, costates, replace_fn=nudge)
        r, inside = (0, 0) if k == 0 else (1, k - 1) if k <= 3 else (2, 0)
        at = lambda a: a.at[:, inside].set(nudge(a[:, inside]))
        return eqx.tree_at(lambda t: t.runs[r], costates, replace_fn=at)

    wrong = hj.verify(problem, weights, multipliers=bent(1e-3))
    assert wrong.verdict == "refuted"
    assert (wrong.worst.index, wrong.worst.where) == (k, "state")
    gaps = wrong.per_stage["backprop|multipliers"]["states"]
    assert set(np.flatnonzero(gaps > 1e-9).tolist()) == {k}
    assert hj.verify(problem, weights, multipliers=bent(1e-7)).verdict == "consistent"


def test_a_kink_is_no_fault():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(6, 3))
    x[2] = 0.0
    stages = [Residual(Dense(3, 3, jax.nn.relu), 0.3) for _ in range(3)]
    y = jnp.asarray(draw.normal(size=(6, 3)))
    problem = ControlProblem(stages, jnp.asarray(x), y, terminal=least_squares)
    weights = problem.init(jax.random.key(1))
    found = hj.verify(problem, weights, routes=("backprop", "pairing", "recursion"))
    assert found.verdict == "exact", str(found)
    assert found.kinks
    assert not found.refuted
    assert "kinks" in str(found)


def test_differences_are_not_misled_by_nearby_kinks():
    """Large steps cross many kinks and can agree by chance on a wrong slope (off by 1e-3, once)."""
    problem = digits_like(jax.nn.relu, n=200)
    for seed in range(5):
        weights = problem.init(jax.random.key(seed))
        found = hj.verify(problem, weights, routes=("backprop", "finite_difference"))
        assert found.verdict == "consistent"
        assert found.finite_difference < 1e-6


def test_a_wrong_relu_is_refuted_even_at_a_kink():
    @jax.custom_jvp
    def relu(x):
        return jnp.maximum(x, 0)

    relu.defjvp(lambda x, v: (relu(x[0]), jnp.where(x[0] > 0, 1.01 * v[0], 0.0)))
    draw = np.random.default_rng(0)
    x = draw.normal(size=(6, 4))
    x[3] = 0.0
    stages = [Dense(4, 4, jax.nn.relu), Dense(4, 4, relu), Dense(4, 4, jax.nn.relu), readout(4, 2)]
    problem = ControlProblem(
        stages, jnp.asarray(x), jnp.asarray(draw.normal(size=(6, 2))), terminal=least_squares
    )
    found = hj.verify(problem, problem.init(jax.random.key(0)))
    assert found.verdict == "refuted"
    assert {f.index for f in found.refuted} == {1}


def test_a_solution_has_a_vanishing_gradient_and_no_false_alarm():
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(20, 3)), draw.normal(size=(20, 1))
    rho = 1e-2
    design = np.hstack([x, np.ones((20, 1))])
    exact = np.linalg.solve(design.T @ design / 20 + rho * np.eye(4), design.T @ y / 20)
    theta = (exact[:3].T, exact[3])
    verdicts = []
    for wrong in (1.0, 1.01):
        found = hj.verify(
            [(affine(weights_factor=wrong), theta)],
            inputs=x,
            targets=y,
            cost=least_squares,
            running=Ridge(rho),
            routes=ALL,
        )
        verdicts.append(found.verdict)
        if wrong == 1.0:
            assert found.stationarity < 1e-15
            assert max(found.agreement.values()) < 1e-13
            assert found.finite_difference < 1e-9
        else:
            assert found.worst.where == "weights"
    assert verdicts == ["exact", "refuted"]


@pytest.mark.parametrize("wrong", [1.0, 1 + 1e-6])
def test_a_host_callback_is_judged_by_differences(wrong):
    host = lambda x: np.asarray(np.tanh(x))

    @jax.custom_vjp
    def outside(x):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.pure_callback(host, shape, x, vmap_method="expand_dims")

    outside.defvjp(lambda x: ((y := outside(x)), y), lambda y, p: (wrong * p * (1 - y**2),))
    draw = np.random.default_rng(0)
    stages = [lift(3, 4), outside, readout(4, 2)]
    problem = ControlProblem(
        stages,
        jnp.asarray(draw.normal(size=(5, 3))),
        jnp.asarray(draw.normal(size=(5, 2))),
        terminal=least_squares,
    )
    weights = problem.init(jax.random.key(0))
    found = hj.verify(problem, weights, routes=("backprop", "pairing", "recursion"))
    assert found.differenced == (1,)
    if wrong == 1.0:
        assert found.verdict == "consistent"
        assert max(found.agreement.values()) < 1e-9
    else:
        assert found.verdict == "refuted"
        assert (found.worst.index, found.worst.where) == (1, "state")


def test_an_iterative_primal_with_an_implicit_rule_is_consistent():
    """Bisection has tangent zero; the implicit rule is the derivative of the root all the same."""

    @jax.custom_jvp
    def root(x):  # z + z^3 = x, by bisection
        def halve(_, ends):
            low, high = ends
            middle = (low + high) / 2
            above = middle + middle**3 > x
            return jnp.where(above, low, middle), jnp.where(above, middle, high)

        ends = (jnp.full(x.shape, -4.0), jnp.full(x.shape, 4.0))
        return jax.lax.fori_loop(0, 80, halve, ends)[0]

    root.defjvp(lambda x, v: ((z := root(x[0])), v[0] / (1 + 3 * z**2)))
    x = np.random.default_rng(0).normal(size=(4, 3))
    found = hj.verify([jnp.sin, root], inputs=x, cost=lambda z: jnp.sum(z**2))
    assert found.verdict == "consistent", str(found)
    assert found.differenced == (1,)


def test_pytree_states_running_costs_and_integer_targets():
    def spread(x, theta):
        return {"a": jnp.tanh(theta["W"] @ x), "b": (x[:2] * theta["s"],)}

    def mix(x, theta):
        return {
            "a": x["a"] + 0.3 * jnp.sin(theta @ x["a"]),
            "b": (x["b"][0] * jnp.cos(x["a"][:2]),),
        }

    def gather(x):
        return jnp.concatenate([x["a"], *x["b"]])[:4]

    draw = np.random.default_rng(0)
    thetas = [
        {"W": draw.normal(size=(3, 5)), "s": draw.normal(size=2)},
        *draw.normal(size=(2, 3, 3)),
    ]
    stages = [(spread, thetas[0]), (mix, thetas[1]), (mix, thetas[2]), gather]
    running = lambda x, theta: 0.1 * sum(jnp.sum(jnp.sin(a)) for a in jax.tree.leaves((x, theta)))
    found = hj.verify(
        stages,
        inputs=draw.normal(size=(6, 5)),
        targets=draw.integers(0, 4, size=6),
        cost=softmax_cross_entropy,
        running=(running, Ridge(0.1)),
        routes=ALL,
    )
    assert found.verdict == "exact", str(found)
    assert max(found.agreement.values()) < 1e-12
    assert found.finite_difference < 1e-8


def test_multipliers_may_lack_the_first(problem, weights, swept):
    _, costates, _ = swept
    absent = eqx.tree_at(
        lambda t: t.runs[0], costates, replace_fn=lambda a: a.at[:, 0].set(jnp.nan)
    )
    found = hj.verify(problem, weights, multipliers=absent)
    assert found.verdict == "exact", str(found)
    assert np.isnan(found.per_stage["backprop|multipliers"]["states"][0])
    flipped = jax.tree.map(jnp.negative, absent)
    assert hj.verify(problem, weights, multipliers=flipped).verdict == "refuted"


@pytest.mark.any_precision
def test_single_precision_warns_and_works():
    from hjcontrol._ground import precision

    problem = digits_like()
    single = jax.tree.map(
        lambda a: a.astype(np.float32) if eqx.is_inexact_array(a) else a,
        problem,
    )
    weights = single.init(jax.random.key(1))
    precision._warn_once.cache_clear()
    with pytest.warns(UserWarning, match="float32"):
        found = hj.verify(single, weights, routes=("backprop", "pairing", "recursion"))
    assert found.verdict == "exact", str(found)
    assert found.tol == 1e-4
    with pytest.raises(ValueError, match="float64"):
        hj.verify(single, weights, routes=("backprop", "finite_difference"))


def test_inputs_that_are_not_finite_are_undefined(problem, weights):
    broken = eqx.tree_at(lambda p: p.inputs, problem, problem.inputs.at[0, 0].set(jnp.nan))
    found = hj.verify(broken, weights)
    assert found.verdict == "undefined"  # no stage is guilty: the input itself is not finite
    assert not found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"routes": ("backprop", "guess")}, "guess"),
        ({"routes": ("backprop",)}, "two routes"),
        ({"routes": ("backprop", "multipliers")}, "multipliers="),
        ({"weights": None}, "weights"),
        ({"weights": ()}, "weights"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_arguments_are_named(problem, weights, arguments, message):
    with pytest.raises(ValueError, match=message):
        hj.verify(problem, arguments.pop("weights", weights), **arguments)


@pytest.mark.usefixtures("unchecked")
def test_a_list_needs_inputs_and_cost():
    with pytest.raises(ValueError, match="inputs="):
        hj.verify([jnp.tanh], cost=jnp.sum)
