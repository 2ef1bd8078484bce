"""What a program measures of a place, and what the host makes of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.verification import program as programs
from hjcontrol.verification.function import stated
from hjcontrol.verification.rule import FIELDS, RAW, finished


def raw(*rows):
    """Rows of `RAW` of a place that has run; what is not named is zero, sizes and counts are one."""
    usual = dict.fromkeys(RAW, 0.0) | {"visits": 1.0, "height": 1.0, "size": 1.0, "count": 1.0}
    return np.asarray([[(usual | row)[name] for name in RAW] for row in rows])


def field(table, name):
    return table[:, FIELDS.index(name)].tolist()


@pytest.mark.parametrize("xp", [np, jnp])
def test_ratios_are_of_their_own_row_and_what_has_not_run_is_zero(xp):
    table = finished(
        xp.asarray(
            raw(
                {"worst": 1.0, "size": 4.0, "live": 3.0, "far": 1.0, "count": 4.0},
                {"worst": 0.0, "size": 1e-308, "off": 3.0, "height": 6.0},
                {"worst": np.nan},
                {"worst": np.inf, "parted": 1.0},
            )
        ),
        xp,
    )
    np.testing.assert_array_equal(field(table, "gap"), [0.25, 0.0, np.nan, np.inf])
    assert field(table, "live") == [0.75, 0.0, 0.0, 0.0]
    assert field(table, "apart") == [0.25, 0.0, 0.0, 0.0]
    assert field(table, "values") == [0.0, 0.5, 0.0, np.inf]
    assert not finished(np.zeros((5, 2, len(RAW)))).any()


@pytest.mark.parametrize(
    ("rows", "guilty"),
    [
        (({"bad": 1.0}, {}), True),  # one argument's result condemns the place
        (({"met": 1.0, "unsound": 1.0}, {}), True),
        (({"bad": 1.0, "unsound": 1.0}, {}), False),  # the costate was not finite already
        (({"bad": 1.0}, {"entering": 1.0}), False),  # an input was not
        (({"bad": 1.0, "outside": 1.0}, {}), False),
        (({}, {}), False),
    ],
)
def test_a_place_is_guilty_of_what_is_not_finite_only_where_nothing_else_was(rows, guilty):
    assert field(finished(raw(*rows)), "undefined") == [guilty, guilty]


def layers(factors):
    def rule(factor):
        @jax.custom_vjp
        def act(x):
            return jnp.tanh(x)

        act.defvjp(lambda x: (act(x), x), lambda x, p: (factor * p * (1 - jnp.tanh(x) ** 2),))
        return act

    acts = [rule(factor) for factor in factors]

    def fn(W, x):
        for act in acts:
            x = act(x @ W) + x
        return jnp.sum(x**2)

    W, x = (jax.random.normal(jax.random.key(k), shape) for k, shape in enumerate([(3, 3), (4, 3)]))
    return fn, (W, x)


def test_equal_rules_share_one_program_and_a_wrong_one_among_them_is_found(monkeypatch):
    fn, args = layers([1.0, 1.0, 1.01, 1.0, 1.0])
    together = hj.verify(fn, *args)
    call = stated(fn, args, lambda path: True, {"has_aux": False, "every": False, "order": 1})
    assert [len(family) for family in call.program.families] == [4]  # the wrong one stands apart
    assert len(call.program.lowered(call.leaves)) == 2
    monkeypatch.setattr(programs, "MEMBERS", 10**9)
    apart = hj.verify(layers([1.0, 1.0, 1.01, 1.0, 1.0])[0], *args)
    verdicts = [[row.verdict for row in found.rows] for found in (together, apart)]
    assert verdicts[0] == verdicts[1] == ["exact"] * 2 + ["refuted"] + ["exact"] * 2
    for found in (together, apart):
        np.testing.assert_allclose(found.rows[2].gap, 0.01 / 1.01, rtol=1e-6)


def test_every_member_of_a_wrong_family_is_refuted_with_its_own_gap():
    found = hj.verify(*(lambda fn, args: (fn, *args))(*layers([1.01] * 4)))
    assert [row.verdict for row in found.rows] == ["refuted"] * 4
    assert len({row.place for row in found.rows}) == 4
    for row in found.rows:
        np.testing.assert_allclose(row.gap, 0.01 / 1.01, rtol=1e-6)
