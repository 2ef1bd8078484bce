"""Programs and arrays that are no layer, in this library's words; and some that look so and are."""

import cvxpy as cp
import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol.layers import Cones, ConicProgram, ProgramLayer, QuadraticProgram, certify
from tests.agreement import assert_agree

EYE, Q = np.eye(2), np.array([1.0, 2.0])
BALL = Cones(soc=(3,)), -np.vstack([np.zeros(2), EYE]), np.array([1.0, 0, 0])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: QuadraticProgram(EYE * np.nan, Q), "QuadraticProgram: `P` must be finite; found nan"),
        (lambda: QuadraticProgram(EYE, Q, G=EYE, h=Q / 0), "`h` must be finite; found inf. Leave"),
        (lambda: QuadraticProgram(EYE, Q, EYE), "`A` comes with `b`"),
        (lambda: QuadraticProgram(np.triu(EYE + 1), Q), "QuadraticProgram: `P` must be symmetric"),
        (lambda: QuadraticProgram(-EYE, Q), "QuadraticProgram: `P` must be positive semidefinite"),
        (lambda: QuadraticProgram(EYE[:0, :0], Q[:0]), "at least one variable is needed"),
        (lambda: QuadraticProgram(EYE, np.stack([Q, Q])), "`q` must be an array of floats of shape"),
        (lambda: ConicProgram(EYE, Q, BALL[1], BALL[2] * np.nan, BALL[0]), "`b` must be finite"),
        (lambda: ConicProgram(EYE, Q, BALL[1], BALL[2], (3,)), "`cones` must be a Cones"),
        (lambda: ConicProgram(EYE, Q, BALL[1][:2], BALL[2][:2], BALL[0]), "have 3 rows; found b"),
        (lambda: certify(QuadraticProgram(EYE, Q), Q, {"equality": Q}), "`inequality`; found equality"),
        (
            lambda: certify(
                QuadraticProgram(EYE, Q), Q, {"equality": Q, "inequality": Q[:0]}
            ),
            r"multipliers `equality` must have shape \(0,\); found \(2,\)",
        ),
        (lambda: certify(QuadraticProgram(EYE, Q), Q, "z"), "certify: `dual` must be an array"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_arrays_that_are_no_program(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def stated(cost, *sides):
    return lambda: ProgramLayer(cp.Problem(cp.Minimize(cost), list(sides)))


def not_layers():
    x, c, S = cp.Variable(3, name="x"), cp.Parameter(3, name="c"), cp.sum_squares
    s, P = cp.Parameter(pos=True, name="s"), cp.Parameter((3, 3), PSD=True, name="Q")
    return {
        "no problem": (lambda: ProgramLayer(cp.Minimize(S(x))), "must be a cvxpy.Problem; found"),
        "a matrix": (stated(cp.quad_form(x, P)), r"QuadForm.*write `sum_squares\(L.T @ x\)`"),
        "a quotient": (stated(S(x / s)), r"write `multiply\(q, x\)` with a parameter q"),
        "a product": (stated(S(x) + c[0] * c[1]), r"give `c\[0\] \* c\[1\]` a parameter of its own"),
        "a function": (stated(cp.exp(c) @ x, x >= 0), r"give `exp\(c\)` a parameter of its own"),
        "a bound": (stated(S(x), cp.norm(x) <= cp.norm(c)), r"fault is `Pnorm.* <= Pnorm.*give `Pnorm"),
        "a hole": (stated(S(x), cp.norm(x) >= 1), "not DCP.*fault is `1.0 <= Pnorm"),
    }  # fmt: skip


NOT_LAYERS = not_layers()


@pytest.mark.parametrize("what", NOT_LAYERS)
@pytest.mark.usefixtures("unchecked")
def test_problems_that_are_no_layer_name_the_place_and_what_to_write(what):
    make, words = NOT_LAYERS[what]
    with pytest.raises(ValueError, match=words):
        make()


def test_bounds_and_sparse_patterns_as_attributes():
    y, c = cp.Variable(3, name="y", bounds=[0, 1]), cp.Parameter(3, name="c")
    layer = ProgramLayer(cp.Problem(cp.Minimize(cp.sum_squares(y - c))))
    assert y.bounds is not None  # the user's problem is left as it was
    assert_agree(layer(jnp.array([2.0, 0.4, -1.0]))["y"], jnp.array([1.0, 0.4, 0.0]), 1e-12)
    W, x = cp.Parameter((2, 2), name="W", sparsity=([0], [1])), cp.Variable(2, name="x")
    layer = ProgramLayer(cp.Problem(cp.Minimize(cp.sum_squares(W @ x - 1) + cp.sum_squares(x))))
    assert_agree(layer(np.array([[0.0, 2], [0, 0]]))["x"], jnp.array([0.0, 0.4]), 1e-12)
    with pytest.raises(ValueError, match="declared with `sparsity`; found entries outside"):
        layer(np.ones((2, 2)))


def test_a_foreign_problem_without_numbers_says_so():
    x, c = cp.Variable(2, name="x"), cp.Parameter(2, name="c")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c)))
    with pytest.raises(ValueError, match="certify: parameter c has no value"):
        certify(problem, np.ones(2))
    c.value = np.ones(2)
    assert certify(problem, np.ones(2)).verdict == "optimal"
    assert certify(problem, np.array([1.0, np.nan])).verdict == "not a number"


def test_arrays_of_two_precisions_meet_in_the_wider():
    program = QuadraticProgram(np.eye(2, dtype=np.float32), Q)
    assert program.P.dtype == program.solve().x.dtype == np.float64
