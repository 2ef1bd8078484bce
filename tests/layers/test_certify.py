r"""The certificate: right answers pass, wrong ones are named, whoever made them."""

import functools

import cvxpy as cp
import equinox as eqx
import jax
import numpy as np
import pytest

from hjcontrol.layers import LSE, Attention, Softmax, Sparsemax, build, certify, legendre_program

RNG = np.random.default_rng(7)
Z = RNG.standard_normal((5, 6))
judge = jax.jit(jax.vmap(lambda z, p: certify(Softmax(0.1).program(z), p)))
one = eqx.filter_jit(certify)  # the same, of one program of any kind


@pytest.mark.smoke
def test_batches_and_names_the_offender():
    p = np.array(jax.vmap(Softmax(0.1))(Z))
    p[1] *= 1.1  # off the simplex
    p[2] = p[2, ::-1]  # feasible, not optimal
    p[3, 4] = np.nan
    found = judge(Z, p)
    assert list(found.verdict) == ["optimal", "infeasible", "suboptimal", "not a number", "optimal"]
    assert found.offender(1)[:2] in {("stationarity", f"p[{j}]") for j in range(6)} | {
        ("primal", "sum")
    }
    assert found.offender(2)[0] == "stationarity"
    assert float(found.gap[1]) == np.inf
    assert float(found.gap[2]) > 1e-3
    assert list(np.asarray(found.certified)) == [True, False, False, False, True]
    assert "not a number" in str(found)


@pytest.mark.parametrize("engine_error", [0.0, 1e-11, 1e-7, 1e-3])
def test_a_perturbation_is_seen_at_its_size(engine_error):
    layer = Sparsemax(0.7)
    p = layer(Z[0])
    free = np.flatnonzero(np.asarray(p) > 0.01)[:2]
    q = np.array(p)
    q[free] += [engine_error, -engine_error]
    found = one(layer.program(Z[0]), q)
    size = 0.7 * engine_error
    assert float(found.gap) <= 2 * engine_error**2 + 1e-15
    assert float(found.complementarity) == pytest.approx(size, rel=0.99, abs=1e-14)
    assert bool(found.optimal) == (engine_error <= 1e-11)


def test_jaxs_answer_and_cvxpys_are_judged_alike():
    layer, z = Softmax(0.1), Z[0]
    assert one(layer.program(z), jax.nn.softmax(z / 0.1)).verdict == "optimal"
    problem = layer.as_cvxpy(z)
    problem.solve(solver="CLARABEL")
    theirs = one(layer.program(z), problem.variables()[0].value, tol=1e-6)
    assert not theirs.optimal  # an interior point is off by orders of magnitude in log p
    assert theirs.offender()[0] == "stationarity"


def test_underflowed_weights_are_not_accused():
    z = np.array([0.0, -1.0, -2.0, -0.5])
    layer = Softmax(1e-3)
    p = layer(z)
    assert (np.asarray(p) == 0).sum() == 2
    assert one(layer.program(z), p).verdict == "optimal"
    vertex = np.array([1.0, 0, 0, 0])
    assert one(layer.program(z), vertex).verdict != "optimal"  # p_4 is 7e-218


def test_multipliers_of_the_users_own():
    layer, z = Sparsemax(0.7), Z[0]
    program, p = layer.program(z), layer(z)
    best = program.multiplier
    assert one(program, p, best).verdict == "optimal"
    worse = one(program, p, best + 0.1)
    assert worse.verdict == "not certified"  # the multiplier is at fault, not the candidate
    assert float(worse.gap) > 0
    assert "gap at most" in str(worse)
    slight = one(program, p, best + 1e-8)
    assert slight.verdict != "suboptimal"
    pair = {"sum": (program.pivot, program.difference)}
    assert one(program, p, pair).verdict == "optimal"
    slope = z - float(best) - 0.7 * np.asarray(layer.phi.slope(p))
    full = {"sum": best, "lower": np.maximum(-slope, 0.0)}
    assert one(program, p, full).verdict == "optimal"
    assert one(program, p, full | {"lower": -1.0 - full["lower"]}).verdict == "infeasible"


def test_hard_programs_have_certificates():
    z = np.array([0.3, -1.0, 0.3, 0.9, 0.9, -0.2])  # ties
    both = eqx.filter_jit(lambda L, z: (L.certify(z), L.certify(z, L(-z))))
    for name in ("max", "top-k", "relu", "tanh", "permutahedron", "l2-ball"):
        right, wrong = both(build(name, 0.0), z)
        assert right.verdict == "optimal", name
        assert wrong.verdict == "suboptimal", name


def test_attention_weights_and_the_legendre_program():
    q, k = RNG.standard_normal((3, 4)), RNG.standard_normal((5, 4))
    attention = Attention()
    weights = eqx.filter_jit(attention)(q, k, k).weights
    assert one(attention.program(q, k), weights).verdict == "optimal"
    assert one(attention.program(q, k), weights[:, ::-1]).verdict == "suboptimal"
    f = LSE(RNG.standard_normal((7, 2)), RNG.standard_normal(7), 0.3)
    x = np.array([0.2, -0.4])
    at, program = eqx.filter_jit(lambda f, x: (f.weights(x), legendre_program(f, f.slope(x))))(f, x)
    assert one(program, at).verdict == "optimal"
    assert one(program, at, x + 0.1).verdict != "optimal"
    assert one(program, eqx.filter_jit(f.weights)(x + 0.1)).verdict == "infeasible"


# ------------------------------------------------------------------------------------ cvxpy problems


@functools.cache
def problems():
    rng = np.random.default_rng(0)
    x, x2, x3, x4 = (
        cp.Variable(4, name="x") for _ in range(4)
    )  # each problem keeps its own answer
    A, b = rng.standard_normal((6, 4)), rng.standard_normal(6)
    S = cp.Variable((2, 2), symmetric=True, name="S")
    w = cp.Variable(3, nonneg=True, name="w")
    t, u = cp.Variable(name="t"), cp.Variable(name="u")
    C = np.array([[1.0, 2.0], [2.0, 1.0]])
    made = {
        "qp": cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b)), [cp.sum(x) == 1, x >= 0.1]),
        "lasso": cp.Problem(
            cp.Minimize(cp.sum_squares(A @ x2 - b) + 2 * cp.norm1(x2)), [x2 <= 0.1]
        ),
        "socp": cp.Problem(cp.Minimize(cp.sum(A @ x3)), [cp.SOC(1.0, x3)]),
        "exp": cp.Problem(cp.Minimize(u), [cp.ExpCone(t, cp.Constant(2.0), u), t == 1.0]),
        "sdp": cp.Problem(cp.Minimize(cp.trace(S @ C)), [S >> 0, cp.trace(S) == 1]),
        "sign": cp.Problem(cp.Minimize(cp.sum_squares(w - np.array([1.0, -1.0, 2.0]))), []),
        "maximise": cp.Problem(cp.Maximize(cp.sum(x4) - cp.sum_squares(x4)), [x4 <= 0.2]),
    }
    for problem in made.values():
        problem.solve(solver="CLARABEL")
    return made


KINDS = ["qp", "lasso", "socp", "exp", "sdp", "sign", "maximise"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_solved_cvxpy_problem_is_certified_from_its_own_duals(kind):
    found = certify(problems()[kind], tol=2e-6)
    assert found.verdict == "optimal", str(found)


@pytest.mark.parametrize("kind", KINDS)
def test_another_point_or_other_duals_are_not(kind):
    problem = problems()[kind]
    held = {v: np.array(v.value) for v in problem.variables()}
    moved = {v: x + 0.05 * np.eye(2) if v.name() == "S" else x + 0.05 for v, x in held.items()}
    assert certify(problem, moved, tol=2e-6).verdict not in ("optimal", "near-optimal")
    assert all(np.array_equal(v.value, x) for v, x in held.items())
    if problem.constraints:
        duals = [c.dual_value for c in problem.constraints]
        flip = lambda y: (
            [-np.asarray(a) - 0.3 for a in y] if isinstance(y, list) else -np.asarray(y) - 0.3
        )
        flipped = [flip(y) for y in duals]
        assert certify(problem, dual=flipped, tol=2e-6).verdict not in (
            "optimal",
            "near-optimal",
        )


def test_a_point_of_an_unconstrained_problem_is_not_certified_for_want_of_constraints():
    x = cp.Variable(2)
    found = certify(cp.Problem(cp.Minimize(cp.sum_squares(x))), np.ones(2))
    assert found.verdict == "suboptimal"
    assert float(found.gap) >= 2.0


# ------------------------------------------------------------------------------------ refusals


@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_are_refused_at_once():
    layer = Softmax(0.1)
    program = layer.program(Z[0])
    for wrong in (np.ones(5), np.ones((2, 6)), 1.0):
        with pytest.raises(ValueError, match=r"shape of the logits, \(6,\)"):
            certify(program, wrong)
    with pytest.raises(ValueError, match=r"AbstractProgram or a cvxpy\.Problem; found Softmax"):
        certify(layer, Z[0])
    with pytest.raises(ValueError, match="candidate is needed"):
        certify(program)
    with pytest.raises(ValueError, match=r"`tol` must be >= 0"):
        certify(program, Z[0], tol=-1.0)
    with pytest.raises(ValueError, match=r"named `sum`, `lower`, `upper`; found \['mu'\]"):
        certify(program, Z[0], {"mu": 1.0})
    x = cp.Variable(2, name="x")
    with pytest.raises(ValueError, match="no value for variable x"):
        certify(cp.Problem(cp.Minimize(cp.sum(x)), [x >= 0]))
    with pytest.raises(ValueError, match="constraint 0 has no multiplier"):
        certify(cp.Problem(cp.Minimize(cp.sum(x)), [x >= 0]), np.ones(2))
    with pytest.raises(ValueError, match="not convex"):
        certify(cp.Problem(cp.Maximize(cp.sum_squares(x))), np.ones(2))
    with pytest.raises(ValueError, match="attribute 'boolean'"):
        certify(cp.Problem(cp.Minimize(cp.sum(cp.Variable(2, boolean=True)))), np.ones(2))
