"""The witness on recurrences and on stages that it cannot, or can only just, look into.

A wrong rule in a tied stage is named once, for the run; a host callback is judged by differences.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.networks import FunctionStage, Tied, readout

N, STEPS, WIDTH = 4, 6, 3
DRAW = np.random.default_rng(17)
U = jnp.asarray(DRAW.standard_normal((N, STEPS, WIDTH)))


@jax.custom_vjp
def cell(x, W, u, fault):
    del fault
    return jnp.tanh(W @ x + u)


def _forward(x, W, u, fault):
    y = jnp.tanh(W @ x + u)
    return y, (x, W, y, fault)


def _reverse(saved, p):
    x, W, y, fault = saved
    d = p * (1 - y**2)
    return W.T @ d * (1 + fault[0]), jnp.outer(d, x) * (1 + fault[1]), d, None


cell.defvjp(_forward, _reverse)


class Cell(eqx.Module):
    W: jax.Array
    fault: tuple = eqx.field(static=True)

    def __call__(self, x, u):
        return cell(x, self.W, u, jnp.asarray(self.fault))


def recurrence(fault, steps=STEPS):
    W = jnp.asarray(DRAW.standard_normal((WIDTH, WIDTH)) / 2)
    from hjcontrol.networks import ModuleStage

    stages = [Tied(ModuleStage(Cell(W, fault), reads="forcing"), steps), readout(WIDTH, 2)]
    problem = hj.ControlProblem(
        stages,
        jnp.asarray(DRAW.standard_normal((N, WIDTH))),
        terminal=lambda x: jnp.sum(jnp.cos(x)),
        running=[hj.control.Ridge(0.1), lambda x, th: 0.1 * jnp.sum(x**2)],
        forcing=U[:, :steps],
    )
    draw = np.random.default_rng(3)
    shapes = jax.eval_shape(problem.init, jax.eval_shape(lambda: jax.random.key(0)))
    return problem, jax.tree.map(lambda a: jnp.asarray(draw.standard_normal(a.shape)), shapes)


def test_every_route_agrees_on_a_recurrence():
    problem, weights = recurrence((0.0, 0.0))
    routes = ("backprop", "pairing", "recursion", "finite_difference")
    certificate = hj.verify(problem, weights, routes=routes, minimum=True)
    assert certificate.verdict == "exact", str(certificate)
    assert max(certificate.agreement.values()) < 1e-12
    assert certificate.finite_difference < 1e-8
    assert certificate.minimum.shape == (STEPS + 1,)
    assert certificate.minimum[0] > 0
    assert np.all(certificate.minimum[1:STEPS] == 0), "one Hamiltonian for the tied run"


def test_a_wrong_rule_for_tied_weights_is_named_once():
    certificate = hj.verify(*recurrence((0.0, 0.01)), routes=("backprop", "pairing"))
    assert certificate.verdict == "refuted"
    assert [str(f) for f in certificate.refuted] == ["weights of 0 (Cell)"]


def test_a_wrong_rule_for_the_state_is_found_at_every_step():
    certificate = hj.verify(*recurrence((0.01, 0.0)), routes=("backprop", "pairing"))
    assert {str(f) for f in certificate.refuted} == {f"state of {k} (Cell)" for k in range(STEPS)}


def test_weights_that_belong_to_no_stage_have_no_gap():
    """The twin of `place`: an identity of a tied run stands at its first stage alone."""
    certificate = hj.verify(*recurrence((0.0, 0.01)))
    weights = certificate.per_stage["backprop|pairing"]["weights"]
    assert weights[0] > 1e-4
    assert np.all(np.isnan(weights[1:STEPS]))
    assert weights[STEPS] < 1e-12


# ------------------------------------------------------------------------------------ cannot be verified


def sine(x, method):
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return jax.pure_callback(lambda a: np.sin(np.asarray(a)), shape, x, vmap_method=method)


def hosted(method, rule=jnp.cos):
    @jax.custom_vjp
    def f(x):
        return sine(x, method)

    f.defvjp(lambda x: (f(x), x), lambda x, p: (p * rule(x),))
    return f


INPUTS = jnp.asarray(DRAW.standard_normal((N, WIDTH)))


def test_a_host_callback_is_judged_by_differences_of_its_values():
    right = hj.verify([hosted("expand_dims")], inputs=INPUTS, cost=lambda x: jnp.sum(x**2))
    assert right.verdict == "consistent"
    assert right.differenced == (0,)
    wrong = hj.verify(
        [hosted("expand_dims", lambda x: 1.01 * jnp.cos(x))],
        inputs=INPUTS,
        cost=lambda x: jnp.sum(x**2),
    )
    assert [str(f) for f in wrong.refuted] == ["state of 0 (f)"]


def halved(x):
    """Halved until small: a loop of unknown length has no reverse mode."""
    return jax.lax.while_loop(lambda a: jnp.max(jnp.abs(a)) > 0.1, lambda a: 0.5 * a, x)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            [jnp.tanh, hosted(None)],
            r"stage 1 \(f\) cannot run on a batch of samples.*`vmap_method='sequential'`",
        ),
        (
            [jnp.tanh, jnp.tanh, halved],
            r"stage 2 \(halved\) cannot be differentiated in reverse mode.*`jax.custom_vjp`",
        ),
    ],
)
def test_what_cannot_be_verified_is_named_with_a_remedy(stages, message):
    with pytest.raises(ValueError, match=message):
        hj.verify(stages, inputs=INPUTS, cost=lambda x: jnp.sum(x**2))


def test_an_error_that_is_no_stages_fault_is_kept():
    with pytest.raises(ValueError, match=r"weights.*are needed"):
        hj.verify(
            hj.ControlProblem([FunctionStage(jnp.tanh)], INPUTS, terminal=jnp.sum), (jnp.ones(3),)
        )
