"""References and constraints along depth, as they are stated: values, prices, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.control import Box, Budget, PathConstraint, StateBall, StateBox
from hjcontrol.control.pricing import path_values, price, priced
from hjcontrol.networks import as_stage


def steering(path=(), depth=3, **options):
    return hj.ControlProblem(
        [(lambda x, u: x + 0.5 * u, jnp.ones(2))] * depth,
        jnp.array([[0.0, 1.0], [2.0, -1.0]]),
        jnp.array([[1.0], [2.0]]),
        terminal=lambda x, y: jnp.sum(x) * y[0],
        path=path,
        **options,
    )


def test_costs_read_the_reference_or_the_stage_and_the_target():
    r = jnp.arange(6.0).reshape(2, 3)
    read = steering(running=lambda x, u, r: r * x[0], references=r)
    weights = read.init(jax.random.key(0))
    states = np.stack([np.asarray(read.rollout(weights)[k]) for k in range(3)], axis=1)
    end = np.asarray(read.rollout(weights).final).sum(1) * np.array([1.0, 2.0])
    wanted = np.mean((np.asarray(r) * states[:, :, 0]).sum(1) + end)
    assert abs(float(read.objective(weights)) - wanted) < 1e-12
    stage = steering(running=lambda x, u, k, y: (k + 3 * (y[0] - 1.0)) * x[0])
    assert abs(float(stage.objective(weights)) - wanted) < 1e-12
    other = read.with_references(2 * r)
    assert abs(float(other.objective(weights)) - wanted) > 1e-3
    assert jax.tree.structure(other) == jax.tree.structure(read)
    part = read.take(jnp.array([1]))
    assert float(part.references.own[0, 0]) == 3.0


def test_time_in_a_drift():
    times = jnp.broadcast_to(jnp.arange(4.0), (1, 4))
    problem = hj.ControlProblem(
        [(lambda x, u, t: x + t * u, jnp.ones(1), "forcing")] * 4,
        jnp.zeros((1, 1)),
        terminal=lambda x: x[0],
        forcing=times,
    )
    assert float(problem.objective(problem.init(jax.random.key(0)))) == 6.0


def test_values_stand_where_the_constraint_is_imposed():
    box = StateBox(upper=jnp.array([0.25, jnp.inf]), last=2)
    mixed = PathConstraint(lambda x, u, k, y: x[0] + k * u[0] - y[0], name="mixed")
    spent = Budget(1.0)
    problem = steering((box, mixed, spent))
    weights = problem.init(jax.random.key(0))
    found = path_values(problem, weights)
    x = np.stack([np.asarray(problem.rollout(weights)[k]) for k in range(4)], axis=1)
    wanted = np.zeros((2, 4, 1))
    wanted[:, 1:3, 0] = x[:, 1:3, 0] - 0.25
    assert np.allclose(found["state box"], wanted, atol=1e-15)
    assert np.allclose(found["mixed"][:, :3, 0], x[:, :3, 0] + np.arange(3) - [[1.0], [2.0]])
    assert np.all(found["mixed"][:, 3] == 0)
    assert float(found["budget"]) == 5.0  # six ones, less the limit


@pytest.mark.parametrize("kind", ["<=", "=="])
def test_the_price_is_the_lagrangian_where_the_constraint_holds(kind):
    c, nu, rho = jnp.array([0.0, 0.0]), jnp.array([0.7, 0.0]), jnp.asarray(3.0)
    slope = lambda rho: jax.grad(lambda c: price(kind, nu, c, rho))(c + (kind == "<=") * 1e-9)
    assert np.allclose(slope(rho), slope(None) + rho * 1e-9 * (kind == "<="), atol=1e-12)


def test_priced_costates_have_the_constraint_in_them():
    """dL/dx_k by differences of the priced objective, at a state that a shift moves."""
    wall = PathConstraint(lambda x: x[0] ** 2 - 1.0, name="wall")
    problem = steering(wall)
    weights = problem.init(jax.random.key(0))
    nu = jnp.zeros((2, 4, 1)).at[1, 2, 0].set(0.8).at[0, 3, 0].set(0.3)
    shadow = priced(problem, None, {"wall": nu}, None)
    with_, without = (hj.control.costate(p, weights)[0] for p in (shadow, problem))
    x = problem.rollout(weights)
    jump = np.asarray(with_[2] - without[2])[1, 0]
    assert abs(jump - 0.5 * 0.8 * 2 * float(x[2][1, 0])) < 1e-12
    end = np.asarray(with_.final - without.final)[0, 0]
    assert abs(end - 0.5 * 0.3 * 2 * float(x.final[0, 0])) < 1e-12


REFUSED = {
    "not-a-constraint": (lambda: steering((lambda x: x,)), "Wrap a function"),
    "kind": (lambda: PathConstraint(lambda x: x, ">="), "'<=' or '=='"),
    "on": (lambda: PathConstraint(lambda x: x, on="time"), "one of 'states', 'stages'"),
    "arguments": (lambda: PathConstraint(lambda a, b, c, d, e: a), "found one of 5"),
    "cost": (lambda: steering(running=lambda a, b, c, d, e: a), "found one of 5"),
    "names": (lambda: steering((StateBall(1.0), StateBall(2.0))), "name of its own"),
    "depths": (lambda: steering(StateBall(9.0, first=2, last=7)), "holds at depths 1 to 3"),
    "shape": (
        lambda: steering(PathConstraint(lambda x: x @ jnp.ones(3))),
        "does not accept its state",
    ),
    "broadcast": (lambda: steering(StateBox(upper=jnp.ones(3))), r"of shape \(2,\) at depth 1"),
    "comparison": (lambda: steering(PathConstraint(lambda x: x <= 1.0)), "stated as x - 1"),
    "crossed": (lambda: StateBox(1.0, 0.0), "must not exceed"),
    "no-bound": (lambda: StateBox(), "must be finite"),
    "radius": (lambda: StateBall(-1.0), "radius"),
    "end": (
        lambda: steering(
            StateBox(upper=1.0),
            terminal_constraint=hj.control.TerminalConstraint(lambda x, y: x[:1] - 3.0),
        ),
        "'terminal constraint' asks coordinate 0 of the state to be 3 at depth 3",
    ),
    "no-end": (
        lambda: steering(terminal_constraint=hj.control.TerminalConstraint(lambda x, y: x[:0])),
        r"`terminal_constraint` must give floating numbers.*float64\[0\]",
    ),
    "end-arguments": (
        lambda: steering(terminal_constraint=hj.control.TerminalConstraint(lambda: 0.0)),
        r"g\(x_K, y\) of one sample",
    ),
    "negative-budget": (lambda: Budget(-1.0), "`limit` must be >= 0"),
    "backwards": (lambda: hj.networks.FreeStep(as_stage(lambda x: -x), -1.0), "must be >= 0"),
    "budget": (lambda: steering(Budget(1.0, lambda th: th)), "must give a scalar"),
    **{
        f"a {kind}": (
            lambda tree=tree: steering(PathConstraint(tree)),
            f"one array; found a {kind}",
        )
        for kind, tree in {
            "tuple": lambda x: (x[0], x[1]),
            "list": lambda x: [x[0] - 1.0, x[1]],
            "dict": lambda x: {"wall": x[0]},
            "NoneType": lambda x: None,
        }.items()
    },
    "tree-at-the-end": (
        lambda: steering(terminal_constraint=hj.control.TerminalConstraint(lambda x, y: (x, y))),
        "`terminal_constraint` must give a number or one array; found a tuple",
    ),
    "tree-as-a-cost": (lambda: steering(running=lambda x, u: (x[0], u[0])), "found a tuple"),
    "no-number-at-an-input": (
        lambda: steering(PathConstraint(lambda x: jnp.sqrt(1 - x[0]), first=0, name="root")),
        "'root' is asked at the inputs.*is nan at depth 0 of sample 1",
    ),
    "minus-infinity-at-an-input": (
        lambda: steering(PathConstraint(lambda x: jnp.log(x[0]) - 5, first=0)),
        "is -inf at depth 0 of sample 0",
    ),
    "inputs": (lambda: steering(StateBox(upper=1.5, first=0)), "sample 1 violates it by 0.5"),
    "no-references": (lambda: steering(running=lambda x, u, r: r), "found no `references`"),
    "unread": (lambda: steering(references=jnp.ones((2, 3))), "no path constraint reads them"),
    "ragged": (
        lambda: steering(running=lambda x, u, r: r, references=jnp.ones((2, 5))),
        r"must be \(2, 3, ...\) or \(1, 3, ...\)",
    ),
    "no-last": (
        lambda: steering(
            PathConstraint(lambda x, r: x[0] - r, on="states"), references=jnp.ones((1, 3))
        ),
        "needs 4 entries along depth",
    ),
    "reshaped": (
        lambda: steering(running=lambda x, u, r: r, references=jnp.ones((2, 3))).with_references(
            jnp.ones((1, 3))
        ),
        "must be shaped as before",
    ),
    "contradiction": (
        lambda: steering((StateBox(upper=1.0), PathConstraint(lambda x: 2 * x[1] - 3.0, "=="))),
        "asks coordinate 1 of the state to be 1.5 at depth 1, and its bounds are -inf to 1",
    ),
    "weights": (
        lambda: steering(PathConstraint(lambda x, u: u[0] + 3.0, "=="), control_set=Box(-1.0, 1.0)),
        "asks weight 0 of the stage to be -3",
    ),
    "multipliers": (
        lambda: hj.control.lagrangian(steering(StateBall(9.0)), None, {"state ball": jnp.ones(3)}),
        r"of shape \(2, 4, 1\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_why(name):
    state, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        state()


def test_an_equality_within_its_bounds_is_no_contradiction():
    steering((StateBox(upper=1.0), PathConstraint(lambda x: 2 * x[1] - 1.0, "==")))
    steering((StateBox(upper=1.0), PathConstraint(lambda x: x[1] ** 2 - 9.0, "==")))  # not affine


def test_an_equality_is_compared_with_the_bounds_and_the_reference_of_its_own_depth():
    end = hj.control.TerminalConstraint(lambda x, y: x[:1] - 3.0, "==")
    reads = {"running": lambda x, u, r: r * x[0]}
    steering(terminal_constraint=end, references=jnp.ones((1, 3)), **reads)  # none at x_3
    follow = lambda k, **o: PathConstraint(lambda x, r: x[0] - r, "==", on="states", first=k, **o)
    late = jnp.array([[9.0, 9.0, 9.0, 0.5]])
    steering((StateBox(upper=1.0), follow(3)), references=late)  # 9 is not asked
    steering((StateBox(upper=1.0, last=2), follow(3)), references=9 * late)  # nor bounded
    with pytest.raises(ValueError, match="to be 9 at depth 2, and its bounds are -inf to 1"):
        steering((StateBox(upper=1.0), follow(2)), references=late)
    ramp = jnp.array([[0.0, 0.0, 1.5, 0.0]])
    with pytest.raises(ValueError, match=r"to be 1\.5 at depth 2"):
        steering((StateBox(upper=1.0), follow(1)), references=ramp)
    box = StateBox(upper=1.0)
    traced = lambda r: jnp.asarray(steering((box, follow(1)), references=r).num_samples)
    assert int(jax.jit(traced)(ramp)) == 2  # known to nobody yet
