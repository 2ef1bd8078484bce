"""Laws of the statement: what is averaged, what is counted once, what is refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.control import Box, Free, Ridge, backpropagate, curvature, gauss_newton_curvature
from hjcontrol.control.hamiltonians import inner
from hjcontrol.networks import Dense, Residual, lift, readout
from tests.agreement import assert_agree, disagreement
from tests.control.problems import PROBLEMS, N, classifier, direction, perturbed, solved

NAMES = list(PROBLEMS)


def objective(problem, weights):
    return jax.jit(lambda w: problem.objective(w))(weights)


# ------------------------------------------------------------------------------------ the sum


@pytest.mark.parametrize("name", NAMES)
def test_the_objective_is_the_sum_it_is_written_as(name):
    """J, sample by sample and stage by stage, in Python."""
    problem, weights, _, _, _ = solved(name)
    chain, thetas = problem.chain, problem.chain.unstack(weights)

    @jax.jit
    def one(x, y):
        cost = 0.0
        for k, theta in enumerate(thetas):
            cost += problem.state_cost(x, theta)
            x = chain[k].step(x, theta)
        return cost + problem.terminal_cost(x, y)

    total = 0.0
    for i in range(N):
        x, y = jax.tree.map(lambda a, i=i: a[i], (problem.inputs, problem.targets))
        total += one(x, y) / N
    total += sum(problem.weight_cost(theta) for theta in thetas)
    assert_agree(objective(problem, weights), jnp.asarray(total), 1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_duplicating_the_samples_changes_nothing(name):
    problem, weights, _, p, gradient = solved(name)
    twice = problem.take(np.tile(np.arange(N), 2))
    value, _, costates, g = jax.jit(lambda w: backpropagate(twice, w))(weights)
    assert_agree(value, objective(problem, weights), 1e-14)
    assert_agree(g, gradient, 1e-14)
    halved = jax.tree.map(lambda a: jnp.tile(a, (2,) + (1,) * (a.ndim - 1)) / 2, p)
    assert_agree(costates, halved, 1e-14)


def test_a_ridge_counted_per_sample_would_be_seen():
    problem = classifier()
    weights = problem.init(jax.random.key(0))
    ridge = objective(problem, weights) - objective(classifier(running=()), weights)
    squares = sum(float(jnp.sum(a**2)) for a in jax.tree.leaves(weights))
    assert_agree(ridge, 0.5 * 0.03 * squares, 1e-13)
    wrong = 0.5 * 0.03 * squares * N
    assert disagreement(ridge, wrong) > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_batches_average_to_the_whole(name):
    problem, weights, _, _, _ = solved(name)
    shared = jax.jit(lambda w: problem.total_weight_cost(w))(weights)
    parts = [problem.take(slice(0, 2)), problem.take(np.array([2, 3, 4]))]
    mean = sum(part.num_samples * (objective(part, weights) - shared) for part in parts) / N
    assert_agree(mean + shared, objective(problem, weights), 1e-14)


def test_order_of_samples_does_not_matter():
    problem, weights, _, p, gradient = solved("classifier")
    order = np.array([3, 0, 4, 1, 2])
    value, _, costates, g = jax.jit(lambda w: backpropagate(problem.take(order), w))(weights)
    assert_agree(value, objective(problem, weights), 1e-15)
    assert_agree(g, gradient, 1e-14)
    assert_agree(costates, jax.tree.map(lambda a: a[order], p), 1e-15)


def test_a_running_cost_is_a_terminal_cost_of_one_more_state():
    """Bolza equals Mayer: an accumulator stage by stage gives the same J and gradient."""
    paid = lambda x, th: 0.3 * jnp.sum(jnp.sin(x) ** 2) + 0.1 * jnp.sum(th.W**2)
    layers = [Residual(Dense(3, 3), 0.5)] * 3
    x, y = jnp.asarray(np.random.default_rng(0).normal(size=(2, N, 3)))
    bolza = hj.ControlProblem(layers, x, y, terminal=hj.control.least_squares, running=paid)
    weights = perturbed(bolza.init(jax.random.key(0)))

    def accumulate(state, theta):
        a, cost = state
        return layers[0].step(a, theta), cost + paid(a, theta)

    mayer = hj.ControlProblem(
        [(accumulate, theta) for theta in bolza.chain.unstack(weights)],
        (x, jnp.zeros(N)),
        y,
        terminal=lambda state, y: hj.control.least_squares(state[0], y) + state[1],
    )
    both = lambda p: jax.jit(jax.value_and_grad(lambda w: p.objective(w)))(weights)
    assert_agree(both(mayer), both(bolza), 1e-14)


# ------------------------------------------------------------------------------------ curvature


@pytest.mark.parametrize("name", ["classifier", "regression"])
def test_curvature_is_symmetric_and_the_slope_of_the_gradient(name):
    problem, weights, _, _, _ = solved(name)
    u, v = direction(weights, 1), direction(weights, 2)
    product = jax.jit(lambda w, d: curvature(problem, w)(d))
    Hu, Hv = product(weights, u), product(weights, v)
    assert_agree(inner(u, Hv), inner(v, Hu), 1e-13)
    slope = jax.jit(jax.grad(lambda w: problem.objective(w)))
    h = 1e-5
    move = lambda s: jax.tree.map(lambda a, b: a + s * b, weights, v)
    differences = jax.tree.map(lambda a, b: (a - b) / (2 * h), slope(move(h)), slope(move(-h)))
    assert_agree(differences, Hv, 1e-6)


def test_gauss_newton_is_symmetric_nonnegative_and_exact_for_an_affine_model():
    problem, weights, _, _, _ = solved("classifier")
    u, v = direction(weights, 1), direction(weights, 2)
    product = jax.jit(lambda w, d: gauss_newton_curvature(problem, w)(d))
    Gu, Gv = product(weights, u), product(weights, v)
    assert_agree(inner(u, Gv), inner(v, Gu), 1e-13)
    assert inner(u, Gu) > 0
    assert inner(v, Gv) > 0
    affine = hj.ControlProblem(
        [readout(3, 2)],
        problem.inputs,
        problem.targets,
        terminal=hj.control.softmax_cross_entropy,
        running=Ridge(0.1),
    )
    theta = affine.init(jax.random.key(0))
    d = direction(theta)
    full, gauss_newton = jax.jit(
        lambda: (curvature(affine, theta)(d), gauss_newton_curvature(affine, theta)(d))
    )()
    assert_agree(full, gauss_newton, 1e-14)


# ------------------------------------------------------------------------------------ costs and sets


@pytest.mark.any_precision
def test_cross_entropy_is_a_free_energy_gap():
    logits = jnp.array([0.3, -1.0, 2.0])
    cost = jax.jit(hj.control.softmax_cross_entropy)
    for label in range(3):
        one_hot = jnp.arange(3) == label
        slope = jax.jit(jax.grad(cost))(logits, jnp.asarray(label))
        assert_agree(slope, hj.deformation.gibbs(logits, 1.0) - one_hot, "float32")
        assert cost(logits, jnp.asarray(label)) > 0
        assert_agree(cost(logits + 7, jnp.asarray(label)), cost(logits, jnp.asarray(label)), 1e-5)
    assert cost(jnp.array([1e4, 0.0]), jnp.asarray(0)) == 0


@pytest.mark.any_precision
def test_projection_on_a_box_is_nearest_idempotent_and_nonexpansive():
    box = Box(-0.5, 0.25)
    rng = np.random.default_rng(0)
    a, b = jnp.asarray(rng.normal(size=(2, 40)), jnp.result_type(float))
    for x in (a, b):
        assert_agree(box.project(box.project(x)), box.project(x), 0.0)
        assert_agree(box.project(x), jnp.asarray(np.clip(x, -0.5, 0.25)), 0.0)
    assert jnp.linalg.norm(box.project(a) - box.project(b)) <= jnp.linalg.norm(a - b)


def test_stationarity_on_a_box_is_the_kkt_condition():
    box = Box(-1.0, 1.0)
    theta = jnp.array([-1.0, 0.0, 1.0])
    assert box.stationarity(theta, jnp.array([2.0, 0.0, -3.0])) == 0.0  # pushing outwards
    assert box.stationarity(theta, jnp.array([-0.5, 0.0, 0.0])) == 0.5
    assert box.stationarity(theta, jnp.array([0.0, 0.3, 0.0])) == pytest.approx(0.3, abs=1e-16)
    assert Free().stationarity(theta, jnp.array([0.0, 1e-17, -2e-17])) == 2e-17
    assert box.stationarity(theta, jnp.array([0.0, jnp.nan, 0.0])) != 0.0


def test_the_start_lies_in_the_control_set():
    problem = classifier(control_set=Box(-0.1, 0.2))
    for a in jax.tree.leaves(problem.init(jax.random.key(0))):
        assert a.min() >= -0.1
        assert a.max() <= 0.2


def test_trajectory_is_a_sequence_of_states():
    problem, weights, states, _, _ = solved("oscillator")
    assert len(states) == len(problem.chain) + 1 == len(list(states))
    assert_agree(states[0], problem.inputs, 0.0)
    assert_agree(states[-1], states[len(states) - 1], 0.0)
    assert_agree(states[-1], states.final, 0.0)
    for k, theta in enumerate(problem.chain.unstack(weights)):
        step = jax.vmap(problem.chain[k].step, (0, None))
        assert_agree(states[k + 1], step(states[k], theta), 1e-15)
    with pytest.raises(IndexError, match="5 states has no state 5"):
        states[5]


# ------------------------------------------------------------------------------------ precision


@pytest.mark.any_precision
def test_float32_inputs_stay_float32_throughout():
    problem = classifier(jnp.float32)
    weights = jax.eval_shape(problem.init, jax.eval_shape(lambda: jax.random.key(0)))
    shapes = jax.eval_shape(lambda w: backpropagate(problem, w), weights)
    second = jax.eval_shape(lambda w: curvature(problem, w)(w), weights)
    recursion = jax.eval_shape(lambda w: hj.control.costate(problem, w), weights)
    for leaf in jax.tree.leaves((weights, shapes, second, recursion)):
        assert leaf.dtype == jnp.float32


def test_the_ridge_sweeps_without_recompiling():
    count = 0

    @jax.jit
    def J(problem_arrays, weights):
        nonlocal count
        count += 1
        return _combine(problem_arrays).objective(weights)

    problems = [classifier(running=Ridge(r)) for r in (0.1, 0.2, 0.4)]
    arrays, static = zip(*[eqx.partition(p, eqx.is_array) for p in problems], strict=True)
    _combine = lambda a: eqx.combine(a, static[0])
    weights = problems[0].init(jax.random.key(0))
    values = [J(a, weights) for a in arrays]
    assert count == 1
    assert_agree(values[2] - values[1], 2 * (values[1] - values[0]), 1e-13)


# ------------------------------------------------------------------------------------ errors

X, Y = np.ones((4, 3)), np.zeros(4, int)
NET = [lift(3, 2)]
CROSS = hj.control.softmax_cross_entropy


@pytest.mark.any_precision
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hj.ControlProblem([], X, Y, terminal=CROSS), "at least one stage"),
        (lambda: hj.ControlProblem(NET, X[:0], Y[:0], terminal=CROSS), "at least one sample"),
        (lambda: hj.ControlProblem(NET, X[0, 0], Y, terminal=CROSS), "leading sample axis"),
        (lambda: hj.ControlProblem(NET, (), Y, terminal=CROSS), "leading sample axis"),
        (
            lambda: hj.ControlProblem(NET, X.astype(int), Y, terminal=CROSS),
            r"`inputs` must be floating .*; found int",
        ),
        (
            lambda: hj.ControlProblem(NET, X, Y[:3], terminal=CROSS),
            r"every leaf of `targets` must have 4 samples in front; found shape \(3,\)",
        ),
        (
            lambda: hj.ControlProblem(NET, {"a": X, "b": X[:2]}, Y, terminal=CROSS),
            r"every leaf of `inputs` must have 4 samples in front; found shape \(2, 3\)",
        ),
        (
            lambda: hj.ControlProblem([lift(5, 2)], X, Y, terminal=CROSS),
            r"stage 0 \(Dense\) does not accept its state of shape \(3,\)",
        ),
        (
            lambda: hj.ControlProblem(NET, X, Y, terminal=lambda x, y: x),
            r"`terminal` must give a scalar for one sample; found shape \(2,\)",
        ),
        (lambda: Ridge(-0.5), r"strength must be >= 0; found -0\.5"),
        (lambda: Box(1.0, -1.0), r"lower <= upper is needed; found 1\.0 and -1\.0"),
    ],
)
def test_wrong_statements_are_refused_at_once(make, message):
    with pytest.raises(ValueError, match=message):
        make()


STEP, FIRST = (lambda x, u: jnp.stack([x[0] + 0.1 * x[1], x[1] + 0.1 * u[0]])), np.zeros(1)
GIVEN = (lambda p, x: x + p, np.zeros(3))  # a model's own order


def of_pair(pair, running=(), inputs=X):
    return hj.ControlProblem(pair, inputs, terminal=lambda x: x @ x, running=running)


@pytest.mark.any_precision
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("pair", "running", "message"),
    [
        ((STEP, FIRST), (), r"\(x, u\), whose first argument is 'x'.*is \[\(f, theta0\)\]"),
        (
            (STEP, FIRST),
            lambda x, u: u[0] ** 2,
            r"called as apply\(params, x\); found the function",
        ),
        (
            (lambda x, th: x + th, np.zeros(2)),
            (),
            "whose first argument is 'x'",
        ),  # both orders compute
        ((lambda s, w: s + w[0], (np.zeros(2),)), (), r"which fails so.*is \[\(f, theta0\)\]"),
        ((lambda s, w: STEP(s, w), FIRST), lambda x, u: u[0] ** 2, r"list, \[\(f, theta0\)\]"),
        ((lambda x, u, r: x + u * r, FIRST, "forcing"), (), r"is \[\(f, theta0, 'forcing'\)\]"),
    ],
)
def test_a_pair_without_its_list_is_refused_in_its_own_words(pair, running, message):
    with pytest.raises(ValueError, match=message):
        of_pair(pair, running, X[:, :2])
    if isinstance(pair[-1], str):
        return
    of_pair([pair], running, X[:, :2])  # the remedy that the words name


def test_a_model_of_parameters_is_a_pair_and_a_cost_reads_its_parameters():
    cost = lambda x, theta: jnp.sum((theta.params - 1.0) ** 2)
    weights = (problem := of_pair(GIVEN, cost)).init(jax.random.key(0))
    assert_agree(problem.objective(weights), 3.0 + 3.0, 1e-14)
