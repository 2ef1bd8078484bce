"""Flows that are seen at times: diffrax's own solve, masks, inputs, second derivatives, refusals."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hjcontrol as hj
from hjcontrol.control.capability import complaint
from hjcontrol.networks import Moment, ObservedFlow, Seen
from hjcontrol.networks.flow_numerics import Numerics, capable, probe
from tests.agreement import assert_agree

DRAW = np.random.default_rng(0)
TIMES = jnp.asarray(np.sort(DRAW.uniform(0, 1, (3, 4)), axis=1))
X = jnp.asarray(DRAW.normal(size=(3, 2)))
A = jnp.asarray([[-0.1, 1.0], [-1.0, -0.1]])
PATH = jax.vmap(diffrax.LinearInterpolation)(
    jnp.broadcast_to(jnp.linspace(0, 1, 5), (3, 5)), jnp.asarray(DRAW.normal(size=(3, 5)))
)


def driven(x, A, moment):
    return A @ x + moment.u + jnp.sin(moment.t)


def stated(flow, **options):
    seen = Seen(TIMES, PATH)
    values = jax.vmap(lambda x, s: flow.step(x, A, s))(X, seen)
    keep = jnp.ones(TIMES.shape).at[:, 3].set(0.0)
    loss = lambda states, y: jnp.sum(y[1][:, None] * (states - y[0]) ** 2)
    return hj.ControlProblem([flow], X, (values, keep), terminal=loss, context=seen, **options)


def flow_of(adjoint="checkpoint", **how):
    start = jnp.zeros((2, 2))
    return ObservedFlow((driven, start, "context"), 1.0, adjoint=adjoint, max_steps=64, **how)


def test_the_states_are_those_of_diffrax_by_hand():
    def by_hand(x, ts, path):
        term = diffrax.ODETerm(lambda t, y, A: driven(y, A, Moment(t, path.evaluate(t))))
        return diffrax.diffeqsolve(
            term,
            diffrax.Tsit5(),
            0.0,
            ts[-1],
            None,
            x,
            A,
            saveat=diffrax.SaveAt(ts=ts),
            stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-6),
            max_steps=64,
        ).ys

    def both(x, seen):
        plain, twice = flow_of(), flow_of("twice")
        return plain.step(x, A, seen), twice.step(x, A, seen), by_hand(x, seen.times, seen.inputs)

    plain, twice, hand = jax.jit(jax.vmap(both))(X, Seen(TIMES, PATH))
    assert_agree(plain, hand)
    assert_agree(twice, hand)
    assert jnp.max(jnp.abs(plain[:, 0] - plain[:, 1])) > 1e-3  # other times, other states


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "exact"), (1.001, "refuted")])
def test_the_witness_reaches_the_rules_of_a_drift(factor, verdict):
    act = jax.custom_vjp(jnp.tanh)
    act.defvjp(lambda y: (jnp.tanh(y), y), lambda y, p: (factor * p / jnp.cosh(y) ** 2,))
    flow = ObservedFlow((lambda x, A: act(A @ x), jnp.eye(2)), 1.0, max_steps=64)
    cost = lambda states, y: jnp.sum((states - y) ** 2)
    goal = jnp.zeros((*TIMES.shape, 2))
    problem = hj.ControlProblem([flow], X, goal, terminal=cost, context=Seen(TIMES))
    found = hj.verify(problem, (A[None],))
    assert {r.verdict for r in found.rows if r.stage == 0} == {verdict}
    assert {r.tensor for r in found.rows if r.stage == 0} == {"state", "weights"}


def test_masked_observations_weigh_nothing_and_others_do():
    problem = stated(flow_of())
    values, keep = problem.targets
    loss = lambda where: jax.vmap(problem.terminal)(
        values, (values.at[:, where].add(1.0), keep)
    ).sum()
    assert loss(3) == 0.0
    assert loss(2) > 1.0


def test_the_second_derivative_over_checkpoints_is_the_direct_adjoint_s():
    found = []
    for adjoint in ("twice", "direct"):
        few = {"solver": diffrax.Heun(), "dt0": 0.25, "max_steps": 8}
        flow = ObservedFlow((driven, jnp.zeros((2, 2)), "context"), 1.0, adjoint=adjoint, **few)
        problem = stated(flow)

        @jax.jit
        def both(w, v, problem=problem):
            slope = jax.grad(problem.objective)
            product = hj.control.derivatives.gauss_newton_curvature(problem, (w,))
            return *jax.jvp(slope, ((w,),), ((v,),)), product((v,))

        found.append(both(0.9 * A[None], jnp.ones((1, 2, 2))))
    for ours, theirs in zip(*found, strict=True):
        assert_agree(ours[0], theirs[0])
    assert jnp.max(jnp.abs(found[0][1][0] - found[0][2][0])) > 1e-6  # Gauss-Newton is not Newton


@pytest.mark.parametrize("solver", [diffrax.Heun(), diffrax.Kvaerno3()], ids=["explicit", "stiff"])
def test_the_table_of_derivatives_tells_the_truth_of_twice(solver):
    control = diffrax.PIDController(rtol=1e-3, atol=1e-3)
    numerics = Numerics(solver, control, "twice", max_steps=4)
    for derivative in ("reverse", "forward", "forward-over-reverse"):
        assert capable(numerics, derivative) == probe(numerics, derivative)


def test_newton_asks_for_twice_and_riccati_for_more():
    with pytest.raises(ValueError, match="adjoint='twice'"):
        hj.solve(stated(flow_of()), "newton", key=jax.random.key(0))
    with pytest.raises(ValueError, match="adjoint='direct'"):
        hj.solve(stated(flow_of("twice")), "riccati", key=jax.random.key(0))


def test_steps_are_counted_for_each_sample():
    flow = flow_of()
    early = Seen(TIMES.at[0].set(1e-3), PATH)
    counts = flow.step_counts(X, A, early)
    assert counts["accepted"].shape == (3,)
    assert int(counts["accepted"][0]) < int(counts["accepted"][1])


def test_a_solve_that_fails_names_the_sample():
    flow = ObservedFlow((lambda x, a: a * x**2, jnp.ones(())), 2.0, max_steps=32)
    seen = Seen(jnp.asarray([[0.5], [2.0]]))
    problem = hj.ControlProblem(
        [flow], jnp.ones((2, 1)), terminal=lambda s: jnp.sum(s), context=seen
    )
    words = complaint(problem, (jnp.ones(1),))
    assert words is not None
    assert "sample 1" in words
    assert complaint(problem, (jnp.zeros(1),)) is None


def test_what_an_implicit_scheme_raises_is_said_in_the_flow_s_words():
    drift = (lambda x, a: a * x**3, jnp.ones(()))
    how = {"solver": diffrax.Kvaerno3(), "max_steps": 16, "adjoint": "twice"}
    tols = diffrax.PIDController(rtol=1e-4, atol=1e-6)
    flow = ObservedFlow(drift, 2.0, stepsize_controller=tols, **how)
    seen = Seen(jnp.asarray([[0.5], [2.0]]))
    cost = lambda s: jnp.sum(s**2)
    problem = hj.ControlProblem([flow], jnp.ones((2, 1)), terminal=cost, context=seen)
    start = (jnp.ones(1),)
    with pytest.raises(RuntimeError, match=r"solve: stage 0 \(ObservedFlow\).*max_steps=16"):
        hj.solve(problem, "gradient", init=start)


def test_what_is_raised_on_the_way_is_said_to_be_so():
    def guarded(x, w):
        return eqx.error_if(x * w, w > 2, "w is above 2")

    problem = hj.ControlProblem(
        [(guarded, jnp.ones(()))], jnp.ones((2, 1)), terminal=lambda s: -jnp.sum(s)
    )
    with pytest.raises(RuntimeError, match=r"w is above 2(.|\n)*the method tried"):
        hj.solve(problem, hj.Gradient(optax.sgd(0.5)), max_steps=20)


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ([[0.5, 0.2]], r"backwards.*index \(0, 1\)"),
        ([[0.5, 1.5]], "t0 .. t1 = 0 .. 1; found 0.5 .. 1.5"),
        ([[0.5, float("nan")]], "backwards"),
    ],
)
def test_bad_times_are_refused(times, words):
    with pytest.raises(ValueError, match=words):
        hj.ControlProblem(
            [ObservedFlow(lambda x: -x, 1.0)],
            jnp.ones((1, 2)),
            terminal=lambda s: jnp.sum(s),
            context=Seen(jnp.asarray(times)),
        )


def test_another_context_and_a_forcing_are_refused():
    with pytest.raises(ValueError, match="Seen"):
        hj.ControlProblem(
            [ObservedFlow(lambda x: -x, 1.0)],
            jnp.ones((1, 2)),
            terminal=lambda s: jnp.sum(s),
            context=jnp.ones((1, 3)),
        )
    with pytest.raises(ValueError, match="'context'"):
        ObservedFlow((lambda x, a, u: x, jnp.ones(1), "forcing"), 1.0)
