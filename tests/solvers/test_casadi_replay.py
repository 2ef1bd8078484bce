"""Law: the replayed program has JAX's values and JAX's Jacobian, primitive by primitive."""

import casadi as ca
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.extend.core import ClosedJaxpr, Jaxpr

from hjcontrol.control import least_squares, softmax_cross_entropy
from hjcontrol.networks import Dense, Residual
from hjcontrol.solvers.casadi_replay import SUPPORTED, UnsupportedPrimitiveError, casadi_function
from tests.solvers.idioms import IDIOMS, REFUSED
from tests.solvers.replayed import CASES, Case

TOLERANCE = 1e-13


class Twins:
    """One function in JAX and in CasADi, with both Jacobians."""

    def __init__(self, function, size, replayed=None):
        example = jnp.zeros(size)
        self.jax = jax.jit(lambda x: (function(x), jax.jacfwd(function)(x)))
        f = casadi_function(replayed or function, example)
        x = ca.SX.sym("x", size)
        self.casadi = ca.Function("twin", [x], [f(x), ca.jacobian(f(x), x)])

    def disagreement(self, x):
        x = np.asarray(x, float)
        worst = 0.0
        for a, b in zip(self.jax(x), self.casadi(x), strict=True):
            a, b = np.asarray(a, float), np.array(b)
            gap = np.abs(a.reshape(b.shape) - b) / np.maximum(1.0, np.abs(a.reshape(b.shape)))
            worst = max(worst, float(gap.max(initial=0.0))) if np.isfinite(gap).all() else np.inf
        return worst


def primitives(jaxpr):
    found = set()
    for eqn in jaxpr.eqns:
        found.add(eqn.primitive.name)
        for value in eqn.params.values():
            for inner in value if isinstance(value, tuple) else (value,):
                if isinstance(inner, ClosedJaxpr | Jaxpr):
                    found |= primitives(getattr(inner, "jaxpr", inner))
    return found


def vectors(case):
    entry = st.floats(case.low, case.high, allow_subnormal=False)  # XLA flushes those to zero
    return st.lists(entry, min_size=case.size, max_size=case.size, unique=case.distinct)


ROWS = [(name, i) for name, cases in CASES.items() for i in range(len(cases))]


def test_every_supported_primitive_has_a_row():
    """Here, or among the idioms, which are tried at three points."""
    idioms = [f for name, f in IDIOMS.items() if name not in REFUSED]
    used = set().union(*(primitives(jax.make_jaxpr(f)(jnp.zeros(6)).jaxpr) for f in idioms))
    assert set(CASES) <= SUPPORTED
    assert sorted(SUPPORTED - set(CASES) - used) == []
    assert all(CASES.values())


@pytest.mark.parametrize(("name", "i"), ROWS, ids=[f"{name}-{i}" for name, i in ROWS])
def test_values_and_jacobian(name, i):
    case = CASES[name][i]
    assert name in primitives(jax.make_jaxpr(case.function)(jnp.zeros(case.size)).jaxpr)
    twins = Twins(case.function, case.size)
    for point in case.points:
        assert twins.disagreement(point) <= TOLERANCE

    @settings(max_examples=10)
    @given(vectors(case))
    def law(x):
        assert twins.disagreement(x) <= TOLERANCE

    law()


def test_the_law_can_fail():
    """A perturbation of 1e-12 of the program, and a hidden derivative, are seen."""
    near = Twins(jnp.sin, 3, replayed=lambda x: jnp.sin(x) * (1 + 1e-12) + 1e-12)
    hidden = Twins(jnp.sin, 3, replayed=lambda x: jax.lax.stop_gradient(jnp.sin(x)))
    for twins in (near, hidden):
        assert twins.disagreement([0.3, 1.0, -2.0]) > TOLERANCE


@settings(max_examples=8)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.data())
def test_any_shape(batch, rows, columns, data):
    """Batched products, broadcasting and reductions over drawn shapes."""
    size = batch * rows * columns

    def function(x):
        a = x.reshape(batch, rows, columns)
        return jnp.max(
            jnp.einsum("bij,bkj->bik", a, jnp.sin(a)) + a.sum(axis=(0, 2))[None, :, None], 0
        )

    x = data.draw(vectors(Case(function, size=size)))
    assert Twins(function, size).disagreement(x) <= TOLERANCE


LAYERS = {
    "relu": jax.nn.relu,
    "softplus": jax.nn.softplus,
    "gelu": jax.nn.gelu,
    "exact gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "silu": jax.nn.silu,
    "elu": jax.nn.elu,
    "mish": jax.nn.mish,
    "softmax": jax.nn.softmax,
    "log_softmax": jax.nn.log_softmax,
    "logsumexp": jax.nn.logsumexp,
    "layer norm": lambda x: (x - x.mean()) * jax.lax.rsqrt(x.var() + 1e-5),
    "cross-entropy": lambda x: softmax_cross_entropy(x, jnp.asarray(2)),
    "least squares": lambda x: least_squares(x, jnp.arange(6.0)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_usual_layers_and_their_curvature(name):
    function = LAYERS[name]
    twins = Twins(function, 6)
    x = ca.SX.sym("x", 6)
    total = ca.sum1(casadi_function(function, jnp.zeros(6))(x))
    curvature = ca.Function("curvature", [x], [ca.hessian(total, x)[0]])
    hessian = jax.jit(jax.hessian(lambda x: jnp.sum(function(x))))
    for point in ([0.3, -1.0, 0.0, 2.0, 2.0, -3.0], [10.0, -10.0, 1.0, 0.0, 5.0, -7.0]):
        assert twins.disagreement(point) <= TOLERANCE
        np.testing.assert_allclose(
            np.array(curvature(point)), hessian(jnp.asarray(point)), atol=1e-12, rtol=1e-12
        )


def test_labels_are_symbols():
    logits, label = jnp.asarray([0.3, -1.0, 2.0]), jnp.asarray(1)
    for cost in (softmax_cross_entropy, lambda z, y: -jax.nn.log_softmax(z)[y]):
        f = casadi_function(cost, logits, label)
        for y in range(3):
            found, expected = float(f(np.asarray(logits), y)), float(cost(logits, jnp.asarray(y)))
            assert abs(found - expected) <= TOLERANCE


def test_stages_take_state_and_weights():
    stage = Residual(Dense(3, 3, jax.nn.softplus), 0.1)
    theta = stage.init(jax.random.key(1))
    x = jnp.asarray([0.1, -0.2, 0.7])
    f = casadi_function(stage.step, x, theta)
    flat = np.concatenate([np.asarray(theta.W).ravel(), np.asarray(theta.b)])
    assert (f.size1_in(0), f.size1_in(1)) == (3, 12)
    np.testing.assert_allclose(
        np.array(f(np.asarray(x), flat)).ravel(), stage.step(x, theta), atol=1e-15
    )


def test_unused_weights_and_constants():
    f = casadi_function(
        lambda x, th: (jnp.ones(2), x[0] + jnp.sort(jnp.asarray([3.0, 1.0]))[0]), jnp.zeros(2), ()
    )
    ones, value = f([2.0, 0.0], [])
    np.testing.assert_array_equal(np.array(ones).ravel(), 1.0)
    assert float(value) == 3.0


@pytest.mark.parametrize(
    ("function", "primitive"),
    [
        (lambda x: jnp.lexsort((x, x)) * x, "sort"),
        (lambda x: x * (x.astype(int) & 3), "and"),
        (lambda x: x.at[(x[0] > 0).astype(int)].set(1.0), "scatter"),
    ],
)
def test_unsupported_names_primitive_and_stage(function, primitive):
    with pytest.raises(UnsupportedPrimitiveError) as caught:
        casadi_function(function, jnp.ones(3), stage="stage 7 (Mine)")
    message = str(caught.value)
    assert f"`{primitive}`" in message
    assert "stage 7 (Mine)" in message
    assert isinstance(caught.value, ValueError)


def test_a_loop_that_asks_symbols_is_unrolled_and_says_when_it_did_not_end():
    halved = lambda x: jax.lax.while_loop(lambda c: c[0] > 1, lambda c: c / 2, x)
    twins = Twins(halved, 3)
    assert twins.disagreement([1000.0, 1.0, -2.0]) <= TOLERANCE  # 10 steps
    assert twins.disagreement([0.5, 1.0, -2.0]) <= TOLERANCE  # none
    assert np.isnan(np.array(twins.casadi(np.array([1e6, 1.0, 1.0]))[0])).all()  # 20, of 16


def test_what_a_function_with_a_rule_hides_from_jax_is_seen():
    """JAX takes the rule's slope, which is the function's; its own operations hide it."""

    @jax.custom_jvp
    def hidden(x):
        return jax.lax.stop_gradient(jnp.sin(x))

    hidden.defjvp(lambda x, dx: (jnp.sin(x[0]), jnp.cos(x[0]) * dx[0]))
    assert Twins(hidden, 3).disagreement([0.3, -1.0, 2.0]) <= TOLERANCE
    bare = lambda x: jax.lax.stop_gradient(jnp.sin(x))
    assert Twins(bare, 3).disagreement([0.3, -1.0, 2.0]) <= TOLERANCE
