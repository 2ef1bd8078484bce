"""A verdict has no units: the same for the objective times 1e-12, for logits with 1e10 added to all."""

import cvxpy as cp
import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol.layers import (
    BinaryEntropy,
    Permutahedron,
    Separable,
    Softmax,
    SoftThreshold,
    Sparsemax,
    certify,
    compare_gradients,
    maximum,
)

Z = np.array([0.3, -1.0, 2.0, 0.5])
UNIFORM = np.full(4, 0.25)
judge = eqx.filter_jit(lambda layer, z, p: layer.certify(z, p))
own = eqx.filter_jit(lambda layer, z: layer(z))
LAYERS = {
    "softmax": Softmax,
    "sparsemax": Sparsemax,
    "top-k": lambda eps: Separable(BinaryEntropy(), eps, total=2),
    "order": lambda eps: Permutahedron(eps, jnp.array([3.0, 1.0, 0.5, -1.0])),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(("scale", "offset"), [(1e-11, 0.0), (1.0, 1e10), (1e12, 1.0)])
def test_right_answers_pass_and_wrong_ones_do_not(name, scale, offset):
    layer, z = LAYERS[name](0.7 * scale), scale * (Z + offset)
    right = own(layer, z)
    assert judge(layer, z, right).verdict == "optimal"
    even = np.full(4, float(np.mean(right)))
    for wrong in (even, 0.999 * right + 0.001 * even, np.roll(right, 1)):
        assert judge(layer, z, wrong).verdict in ("suboptimal", "near-optimal")
    assert judge(layer, z, even).verdict == "suboptimal"


def test_one_entry_moved_by_a_millionth_is_refused():
    for name, make in LAYERS.items():
        layer = make(3.0)
        p = np.array(own(layer, Z))
        free = np.argmax(np.abs(p) * (np.abs(p) < 0.99))
        p[free] *= 1 + 1e-6
        assert judge(layer, Z, p).verdict not in ("optimal", "near-optimal"), name


@pytest.mark.parametrize("layer", [Softmax(1.0), Sparsemax(1.0), maximum(), LAYERS["order"](0.1)])
def test_what_float64_cannot_tell_is_said(layer):
    z = Z + 1e16
    assert judge(layer, z, own(layer, z)).verdict == "undecidable in float64"
    assert not judge(layer, z, own(layer, z)).certified
    assert "undecidable in float64" in str(judge(layer, z, own(layer, z)))
    assert judge(layer, z, 2 * own(layer, z) + 1).verdict == "infeasible"


def test_a_mask_of_a_finite_number_hides_no_wrong_answer():
    z = np.array([0.0, -1.0, -1e12])
    for layer in (maximum(), Sparsemax(0.5), Softmax(0.5)):
        assert judge(layer, z, own(layer, z)).verdict == "optimal"
        assert judge(layer, z, np.array([0.5, 0.5, 0.0])).verdict == "suboptimal"


def test_a_threshold_in_any_unit():
    for scale in (1e-12, 1.0, 1e12):
        layer, z = SoftThreshold(0.5, 0.4 * scale), scale * Z
        assert judge(layer, z, own(layer, z)).verdict == "optimal"
        moved = np.asarray(own(layer, z)) + np.array([0, 0, 1e-4 * scale, 0])
        assert not judge(layer, z, moved).optimal


@pytest.mark.parametrize("scale", [1e-7, 1.0, 1e7])
def test_least_squares_of_any_size(scale):
    rng = np.random.default_rng(0)
    A, b, x = rng.standard_normal((20, 5)), rng.standard_normal(20), cp.Variable(5, name="x")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(scale * (A @ x - b))))
    best = np.linalg.lstsq(A, b, rcond=None)[0]
    assert certify(problem, best).verdict == "optimal"
    for wrong in (best + 5, np.zeros(5), best + 1e-4):
        assert certify(problem, wrong).verdict not in ("optimal", "near-optimal")


@pytest.mark.parametrize("unit", [1e-12, 1.0])
def test_a_nonnegative_projection_in_any_unit(unit):
    x = cp.Variable(2, name="x")
    problem = cp.Problem(
        cp.Minimize(0.5 * cp.sum_squares(x - unit * np.array([-1.0, 1.0]))), [x >= 0]
    )
    right, dual = unit * np.array([0.0, 1.0]), [unit * np.array([1.0, 0.0])]
    assert certify(problem, right, dual).verdict == "optimal"
    for wrong in (np.zeros(2), unit * np.array([0.5, 1.0]), unit * np.ones(2)):
        assert certify(problem, wrong, dual).verdict not in ("optimal", "near-optimal")


def test_inexact_multipliers_accuse_nobody():
    x = cp.Variable(2, name="x")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - 1)), [cp.sum(x) == 1])
    exact = certify(problem, np.full(2, 0.5), [1.0])
    assert exact.verdict == "optimal"
    loose = certify(problem, np.full(2, 0.5), [1.0 + 1e-8])
    assert loose.verdict == "not certified"
    assert "gap at most" in str(loose)
    assert "suboptimal" not in str(loose)


def test_a_comparison_of_nothing_says_so():
    z = np.array([[0.3, 0.1, -1.0], [np.nan, 0.0, 1.0]])
    table = eqx.filter_jit(lambda z: z)(z)
    found = compare_gradients(_Unchecked(0.5), table)
    assert list(found.verdict) == ["agree", "not a number"]
    assert not found.agree
    assert "all agree" not in str(found)
    broken = compare_gradients(Softmax(0.5), Z[None], others={"broken": lambda z: z * jnp.nan})
    assert str(broken.verdict[0]) == "refuted: broken"


class _Unchecked(Softmax):
    """As under `jit`, where a NaN cannot be seen at the door."""
