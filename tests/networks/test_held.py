"""What of a module is trained: its floating arrays, and not what its class or its user holds."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hjcontrol as hj
from hjcontrol.layers import LSE, LogitHead, Softmax, SoftThreshold
from hjcontrol.networks import Dense, ModuleStage
from hjcontrol.networks.dense import identity

X = np.linspace(-1.0, 1.0, 18).reshape(6, 3)
Y = np.eye(3)[np.arange(6) % 3]


def squares(x, y):
    return jnp.sum((x - y) ** 2)


def trained(last, steps=500):
    problem = hj.ControlProblem([Dense(3, 3, identity), last], X, Y, terminal=squares)
    solver = hj.solvers.Gradient(optax.adam(1e-2), tol=0.0)
    found = hj.solve(problem, solver, key=jax.random.key(0), max_steps=steps, throw=False)
    stage, theta = problem.chain[1], problem.chain.unstack(found.weights)[1]
    return eqx.combine(theta, stage.rest)


def test_the_temperature_of_a_layer_is_not_trained_unless_asked():
    assert float(trained(Softmax(0.5)).eps) == 0.5
    assert abs(float(trained(ModuleStage(Softmax(0.5), trainable=("eps",))).eps) - 0.5) > 0.1


class Scaled(eqx.Module):
    """A user's module with a hyperparameter that is an array, and a convex layer inside."""

    gain: jax.Array
    slope: jax.Array = eqx.field(converter=jnp.asarray)
    layers: tuple

    def __call__(self, x):
        return self.layers[0](self.gain * x) * self.slope


class Declared(Scaled):
    held = ("slope",)


def scaled(kind=Scaled, slope=2.0):
    return kind(jnp.ones(3), slope, (Softmax(0.5),))


def weights(stage):
    paths = jax.tree_util.tree_leaves_with_path(stage.init(jax.random.key(0)))
    return {jax.tree_util.keystr(path) for path, _ in paths}


@pytest.mark.any_precision
@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        (lambda: hj.networks.as_stage(scaled()), {".gain", ".slope"}),
        (lambda: hj.networks.as_stage(scaled(Declared)), {".gain"}),
        (lambda: ModuleStage(scaled(), frozen="slope"), {".gain"}),
        (lambda: ModuleStage(scaled(), frozen=lambda a: jnp.ndim(a) == 0), {".gain"}),
        (
            lambda: ModuleStage(
                scaled(),
                frozen=eqx.tree_at(
                    lambda m: m.slope, jax.tree.map(lambda _: False, scaled()), True
                ),
            ),
            {".gain"},
        ),
        (lambda: ModuleStage(scaled(), frozen=True), set()),
        (
            lambda: ModuleStage(scaled(), trainable=["layers.0.eps"]),
            {".gain", ".slope", ".layers[0].eps"},
        ),
        (lambda: ModuleStage(scaled(Declared), frozen=["gain"], trainable=["slope"]), {".slope"}),
        (lambda: ModuleStage(SoftThreshold(0.5, 0.6), frozen=["lam"]), set()),
        (lambda: hj.networks.as_stage(LogitHead(jnp.tanh, 0.5)), set()),
        (lambda: hj.networks.as_stage(LSE(np.eye(3), np.zeros(3), 0.5)), {".W", ".b"}),
    ],
)
def test_what_is_held(stage, expected):
    assert weights(stage()) == expected


def test_a_held_layer_keeps_its_derivative_in_the_state_and_in_the_weights():
    stage, module = ModuleStage(scaled(), frozen=("slope",)), scaled()
    theta = stage.init(jax.random.key(0))
    assert np.array_equal(stage.step(X[0], theta), module(X[0]))
    ours = jax.jacobian(lambda t: stage.step(X[0], t))(theta).gain
    whole = jax.jacobian(lambda g: eqx.tree_at(lambda m: m.gain, module, g)(X[0]))(module.gain)
    assert np.array_equal(ours, whole)


def test_a_sweep_over_what_is_held_compiles_once():
    traces = []

    @eqx.filter_jit
    def objective(problem, weights):
        traces.append(1)
        return problem.objective(weights)

    found = []
    for value in (0.25, 0.5, 1.0):
        last = ModuleStage(
            eqx.tree_at(lambda m: m.layers[0].eps, scaled(slope=value), jnp.asarray(value)),
            frozen=("slope",),
        )
        problem = hj.ControlProblem([Dense(3, 3, identity), last], X, Y, terminal=squares)
        found.append(float(objective(problem, problem.init(jax.random.key(0)))))
    assert len(traces) == 1
    assert len(set(found)) == 3


@pytest.mark.any_precision
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frozen": ["slop"]}, "has gain, slope, layers.0.eps; found 'slop'"),
        ({"trainable": ["total"]}, "`trainable` must name floating arrays of Scaled"),
        ({"frozen": (True, False)}, "a filter that fits Scaled"),
    ],
)
def test_what_names_nothing_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ModuleStage(scaled(), **options)


def test_what_is_held_runs_in_the_states_precision():
    stage = ModuleStage(scaled(slope=np.float64(2.0)), frozen=("slope",))
    problem = hj.ControlProblem(
        [stage], X.astype(np.float32), Y.astype(np.float32), terminal=squares
    )
    assert problem.rollout(problem.init(jax.random.key(0))).final.dtype == np.float32
