"""A rule that reads a state which is not passed: wrong when the program runs, right when tried alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.verification import slots
from hjcontrol.verification.function import stated
from hjcontrol.verification.nearby import jumps
from hjcontrol.verification.trial import Trial

SETTINGS = {"has_aux": False, "every": False, "order": 1}

W = jax.random.normal(jax.random.key(0), (4, 8, 8)) / 3
x = jax.random.normal(jax.random.key(1), (5, 8))


def spoilt(calls, forward):
    """tanh whose rule, or whose forward pass, is wrong by half in its first `calls` runs."""
    runs = [0]

    def host(a):
        runs[0] += 1
        return np.asarray(a) * (1.5 if runs[0] <= calls else 1.0)

    def by_host(a):
        shape = jax.ShapeDtypeStruct(a.shape, a.dtype)
        return jax.pure_callback(host, shape, a, vmap_method="sequential")

    if forward:
        keep = lambda x: (by_host(jnp.tanh(x)), x)
        back = lambda x, p: (p * (1 - jnp.tanh(x) ** 2),)
    else:
        keep = lambda x: (jnp.tanh(x), x)
        back = lambda x, p: (by_host(p * (1 - jnp.tanh(x) ** 2)),)
    act = jax.custom_vjp(jnp.tanh)
    act.defvjp(keep, back)
    return lambda W, x: jnp.sum(act(x @ W[0]) ** 2)


@pytest.mark.parametrize("forward", [False, True], ids=["backward", "forward"])
@pytest.mark.parametrize(("calls", "verdict"), [(0, "exact"), (1, "untested"), (99, "refuted")])
def test_a_rule_that_is_right_only_when_tried_alone_is_not_exact(calls, verdict, forward):
    certificate = hj.verify(spoilt(calls, forward), W, x)
    assert certificate.verdict == verdict
    assert bool(certificate) == (verdict == "exact")
    if verdict == "untested":
        assert "depends on a state that is not passed" in certificate.rows[0].reason


def test_a_family_whose_record_is_spoilt_is_not_exact(monkeypatch):
    """A trial that starts from a right record does not overrule the measurement."""

    def flipped(maps, *rest):
        ins, p, by_rule = whole(maps, *rest)
        return ins, p, tuple(-a for a in by_rule)

    def fn(W, x):
        for w in W:
            x = act(x @ w)
        return jnp.sum(x**2)

    act = jax.custom_vjp(jnp.tanh)
    act.defvjp(lambda x: (jnp.tanh(x), x), lambda x, p: (p * (1 - jnp.tanh(x) ** 2),))
    whole = slots._whole
    monkeypatch.setattr(slots, "_whole", flipped)
    assert hj.verify(fn, W, x).verdict == "untested"
    monkeypatch.undo()
    assert hj.verify(lambda W, x: fn(W, x), W, x).verdict == "exact"


@pytest.mark.parametrize(("at", "far"), [(1.0, True), (1.5, False)], ids=["kink", "smooth"])
def test_a_derivative_that_jumps_within_roundoff_is_told_from_one_that_does_not(at, far):
    """Of |x - 1| the slope is -1 or 1 one rounding away from 1, and 1 around 1.5."""
    act = jax.custom_vjp(lambda x: jnp.abs(x - 1.0))
    act.defvjp(lambda x: (jnp.abs(x - 1.0), x), lambda x, p: (p * jnp.sign(x - 1.0),))
    x = np.full(3, np.nextafter(at, 2.0))
    program = stated(lambda x: jnp.sum(act(x)), (x,), lambda path: True, SETTINGS).program
    program.measure([jnp.asarray(x)])
    found = jumps(Trial(program.maps[0], program.groups[0]), [x], [np.ones(3)], 0)
    assert found == ([pytest.approx(2.0)] if far else [0.0])
