r"""The user's own program as a layer: DPP, optimum, derivative, certificate, failure as a value."""

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol._ground.results import RESULTS
from hjcontrol.layers import ProgramLayer, QuadraticProgram, Sparsemax, certify
from tests.agreement import assert_agree


@pytest.fixture(scope="module")
def lasso():
    x = cp.Variable(3, name="x")
    c, r = cp.Parameter(3, name="c"), cp.Parameter(nonneg=True, name="r")
    cost = cp.sum_squares(x - c) + r * cp.norm1(x) + 2
    return ProgramLayer(cp.Problem(cp.Minimize(cost), [cp.sum(x) == 1, x >= -0.2]))


C, R = jnp.array([0.3, -0.5, 0.9]), jnp.array(0.4)


def test_optimum_certificate_and_derivative(lasso):
    problem = lasso.as_cvxpy(C, R)
    problem.solve(solver="CLARABEL")
    f = lambda c, r: lasso.solve(c, r).variables["x"]

    def called(c, r):
        answer = lasso(c, r)
        return answer["x"], answer

    # One program of answer and derivative: what is compiled anew for each is the whole solver. The
    # reverse mode, not compiled as a whole, goes through the parts that are compiled already.
    forward, answer = jax.jit(jax.jacfwd(called, (0, 1), has_aux=True))(C, R)
    assert_agree(answer["x"], problem.variables()[0].value, 1e-7)
    assert lasso.certify(C, R).verdict == "optimal"
    reverse, h = jax.jacrev(f, (0, 1))(C, R), 1e-5
    for argnum, bumps in enumerate((np.eye(3), np.ones((1,)))):
        assert_agree(reverse[argnum], forward[argnum], 1e-13)
        moved = lambda e, k=argnum: (C + e, R) if k == 0 else (C, R + e)
        pairs = [(f(*moved(h * e)), f(*moved(-h * e))) for e in bumps]
        differences = np.stack([(a - b) / (2 * h) for a, b in pairs], axis=-1)
        assert_agree(reverse[argnum].reshape(differences.shape), differences, 1e-8)
    batched = jax.jit(jax.vmap(f, (0, None)))(jnp.stack([C, C[::-1]]), R)
    assert_agree(batched[0], answer["x"], 1e-12)


def test_a_layer_of_ours_stated_by_the_user():
    p, z = cp.Variable(4, name="p"), cp.Parameter(4, name="z")
    projection = cp.Problem(cp.Minimize(cp.sum_squares(p - z)), [cp.sum(p) == 1, p >= 0])
    layer, ours = ProgramLayer(projection), Sparsemax(1.0)
    Z = jnp.asarray(np.random.default_rng(0).standard_normal((5, 4)))
    f = lambda z: layer.solve(z).variables["p"]
    assert_agree(jax.jit(jax.vmap(f))(Z), jax.vmap(ours)(Z), 1e-10)
    g = jnp.arange(4.0)
    pulled = lambda f: jax.jit(jax.vmap(lambda z: jax.vjp(f, z)[1](g)[0]))
    assert_agree(pulled(f)(Z), pulled(ours)(Z), 1e-8)


def test_a_linear_programs_vertex_and_its_sensitivity():
    x, c, b = cp.Variable(2, name="x"), cp.Parameter(2), cp.Parameter()
    layer = ProgramLayer(cp.Problem(cp.Minimize(c @ x), [cp.sum(x) == b, x >= 0]))
    c0, b0 = jnp.array([1.0, 2.0]), jnp.array(1.5)
    f = lambda c, b: layer.solve(c, b).variables["x"]
    assert_agree(f(c0, b0), jnp.array([1.5, 0.0]), 1e-10)
    by_cost, by_bound = jax.jacrev(f, (0, 1))(c0, b0)
    assert_agree(by_cost, jnp.zeros((2, 2)), 1e-9)
    assert_agree(by_bound, jnp.array([1.0, 0.0]), 1e-9)


def test_failure_is_a_value():
    x, b, c = cp.Variable(2, name="x"), cp.Parameter(name="b"), cp.Parameter(2, name="c")
    between = ProgramLayer(cp.Problem(cp.Minimize(cp.sum(x)), [x >= b, x <= 1]))
    assert between.solve(jnp.array(0.0)).result == RESULTS.successful
    empty = between.solve(jnp.array(2.0))
    assert empty.result == RESULTS.infeasible
    assert certify(between.program(jnp.array(2.0)), jnp.ones(2)).verdict == "infeasible"
    with pytest.raises(ValueError, match=r"No point that meets .* uses .* kinds: inequality"):
        between(jnp.array(2.0))
    proof = empty.proof["inequality"]  # Farkas, by hand: -x <= -2 and x <= 1 weigh the same
    assert_agree(proof, np.ones(4), 1e-6)
    assert not np.any(empty.proof["direction of x"])
    given = ProgramLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [c >= 0]))
    assert given.solve(-jnp.ones(2)).result == RESULTS.infeasible  # a row without variables
    below = ProgramLayer(cp.Problem(cp.Minimize(c @ x), [x <= 1]))
    assert below.solve(-jnp.ones(2)).result == RESULTS.successful
    endless = below.solve(jnp.ones(2))
    assert endless.result == RESULTS.unbounded
    assert np.all(np.asarray(endless.proof["direction of x"]) < 0)
    with pytest.raises(ValueError, match="falls along the direction of x"):
        below(jnp.ones(2))


@pytest.mark.usefixtures("unchecked")
def test_what_is_not_a_layer_is_refused_with_the_place(lasso):
    x, c, d = cp.Variable(3, name="x"), cp.Parameter(3, name="c"), cp.Parameter(3, name="d")
    product = cp.Problem(cp.Minimize(cp.sum_squares(x - cp.multiply(c, d))))
    with pytest.raises(ValueError, match=r"not DPP; the sub-expression at fault is `c \* d`"):
        ProgramLayer(product)
    with pytest.raises(ValueError, match="not DCP"):
        ProgramLayer(cp.Problem(cp.Maximize(cp.sum_squares(x))))
    with pytest.raises(ValueError, match=r"parameter c has shape \(3,\); found \(2,\)"):
        lasso.solve(np.ones(2), 1.0)
    with pytest.raises(ValueError, match=r"2 parameters are needed \(c, r\); found 1"):
        lasso.solve(np.ones(3))


def test_another_programs_point_is_not_certified(lasso):
    wrong = lasso.solve(C + 0.1, R).point
    program = lasso.program(C + jnp.array([0.1, 0.0, 0.0]), R)
    assert certify(program, wrong.x, wrong).verdict not in ("optimal", "near-optimal")


BAD = {
    "an integer variable": (
        lambda x, c: cp.Problem(cp.Minimize(cp.sum_squares(cp.Variable(3, integer=True) - c))),
        "integer; a layer needs a convex program",
    ),
    "two of one name": (
        lambda x, c: cp.Problem(
            cp.Minimize(cp.sum_squares(x - c) + cp.norm(cp.Variable(name="x")))
        ),
        "two variables have the name 'x'",
    ),
    "a wide power cone": (
        lambda x, c: cp.Problem(
            cp.Minimize(c @ x), [cp.constraints.PowConeND(x[:2], x[2], np.array([0.3, 0.7]))]
        ),
        "power cones of more than three dimensions|no cone form",
    ),
    "no variable": (
        lambda x, c: cp.Problem(cp.Minimize(cp.sum(c))),
        "the problem has no variables",
    ),
    "no entry": (
        lambda x, c: cp.Problem(cp.Minimize(cp.sum_squares(x - c) + cp.sum(cp.Variable(0)))),
        "has no entries; found shape",
    ),
    "an engine": (None, "`engine` must be one of"),
}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.usefixtures("unchecked")
def test_what_is_refused_at_construction(what):
    make, words = BAD[what]
    x, c = cp.Variable(3, name="x"), cp.Parameter(3, name="c")
    plain = cp.Problem(cp.Minimize(cp.sum_squares(x - c)))
    with pytest.raises(ValueError, match=words):
        ProgramLayer(make(x, c)) if make else ProgramLayer(plain, engine="simplex")


@pytest.mark.usefixtures("unchecked")
def test_what_is_refused_of_a_parameter(lasso):
    for value, words in (
        (("abc", R), r"parameter c must be a real array of shape \(3,\); found 'abc'"),
        ((C * 1j, R), "parameter c must be a real array"),
        ((C, -10.0), "declared `nonneg=True` and must be >= 0; found -10.0"),
        ((C * jnp.nan, R), "parameter c must be finite; found nan"),
        ((jnp.stack([C, C]), R), r"Batch with `jax.vmap`: one call takes one sample"),
        ((None, R), "parameter c has no value"),
    ):
        with pytest.raises(ValueError, match=words):
            lasso.solve(*value)
    M = cp.Parameter((2, 2), PSD=True, name="M")
    X = cp.Variable((2, 2), name="X", symmetric=True)
    layer = ProgramLayer(cp.Problem(cp.Minimize(cp.sum_squares(X - M))))
    with pytest.raises(ValueError, match="must be symmetric"):
        layer.solve(np.array([[1.0, 2.0], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="eigenvalue of the wrong sign"):
        layer.solve(-np.eye(2))


def test_the_maps_are_cvxpys_own_and_small():
    """Every attribute at once against cvxpy's own compilation at these values, entry by entry."""
    w, X = cp.Variable(3, name="w"), cp.Variable((2, 2), PSD=True, name="X")
    y, Y = cp.Variable(2, nonneg=True, name="y"), cp.Variable((2, 2), diag=True, name="Y")
    S, q = cp.Parameter((2, 2), symmetric=True), cp.Parameter(3)
    D, n = cp.Parameter((3, 3), diag=True), cp.Parameter(nonpos=True)
    Q, L = cp.Parameter((2, 2), PSD=True), cp.Parameter((2, 3), nonneg=True)
    cost = cp.sum_squares(L @ w - q[:2]) + cp.trace(S @ X) + cp.norm(w) - cp.sum(cp.entr(w))
    cost = cost + cp.sum(y) + cp.trace(Q @ Y)
    sides = [cp.sum(w) == 1, cp.sum(D @ w) >= n, y >= w[:2], cp.trace(X) == 1, X >> Q, Y >> 0]
    problem = cp.Problem(cp.Minimize(cost), sides)
    layer = ProgramLayer(problem)
    rng = np.random.default_rng(0)
    values = {S: np.array([[1, 2], [2, 5.0]]), q: rng.random(3), D: np.diag(rng.random(3))}
    values |= {n: -0.3, Q: np.array([[2, 0.5], [0.5, 1]]), L: rng.random((2, 3))}
    program = layer.program(*(values[p] for p in problem.parameters()))
    for p, v in values.items():
        p.value = v
    data = problem.get_problem_data(cp.CLARABEL)[0]
    whole = data["P"].toarray()
    whole = whole if np.any(np.tril(whole, -1)) else whole + np.triu(whole, 1).T
    for ours, theirs in ((program.P, whole), (program.A, data["A"].toarray())):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-15)
    np.testing.assert_allclose(program.b, data["b"], rtol=0, atol=1e-15)
    np.testing.assert_allclose(program.q, data["q" if "q" in data else "c"], rtol=0, atol=1e-15)
    assert layer.reading.variables(jnp.arange(1.0, layer.reading.n + 1))["Y"][0, 1] == 0
    x, A, b = cp.Variable(20, name="x"), cp.Parameter((100, 20)), cp.Parameter(100)
    squares = ProgramLayer(cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b))))
    tables = (getattr(squares.reading, k) for k in "PqAb")
    assert sum(v.nbytes for t in tables for v in (t.at, t.of, t.by)) < 1e5


def test_precision_of_the_input_is_kept_and_nothing_is_traced_twice(lasso, monkeypatch):
    low = lasso.solve(C.astype(jnp.float32), R.astype(jnp.float32))
    high = lasso.solve(C, R)
    assert low.variables["x"].dtype == low.point.z.dtype == jnp.float32
    assert_agree(low.variables["x"].astype(float), high.variables["x"], 1e-6)
    assert lasso.certify(C.astype(jnp.float32), R.astype(jnp.float32)).verdict == "optimal"
    loss = lambda c, r: lasso.solve(c, r).variables["x"][0]
    pulled = jax.grad(loss)(C.astype(jnp.float32), R.astype(jnp.float32))
    assert pulled.dtype == jnp.float32
    assert_agree(pulled.astype(float), jax.grad(loss)(C, R), 1e-6)
    traced = []
    reading = type(lasso.reading)
    before = reading.data
    monkeypatch.setattr(reading, "data", lambda self, t: (traced.append(1), before(self, t))[1])
    lasso.solve(C + 0.01, R)
    lasso.solve(C + 0.02, R)
    assert not traced


def test_what_is_not_finite_stays_so(lasso):
    found = jax.jit(lambda c: lasso.solve(c, R))(C.at[0].set(jnp.nan))
    assert np.all(np.isnan(found.variables["x"]))
    assert not found.point.converged


@pytest.mark.usefixtures("unchecked")
def test_a_start_of_another_program_is_refused(lasso):
    other = QuadraticProgram(jnp.eye(2), jnp.ones(2)).solve()
    assert_agree(other.x, -jnp.ones(2), 1e-15)  # no constraint at all
    with pytest.raises(ValueError, match="positive semidefinite; found the eigenvalue"):
        QuadraticProgram(-jnp.eye(2), jnp.ones(2)).solve()
    for start in (other, 3):
        with pytest.raises(ValueError, match="`start` must be the `Point` of a program with"):
            lasso.solve(C, R, start=start)


@pytest.mark.parametrize("power", [3, 6])
def test_units_of_every_variable_and_row(power):
    """Answers in units of 10^u, u in [-power, power], are those in units of 1, carried over."""
    rng, parts, units = np.random.default_rng(5), [], []
    for _ in range(50):
        L, G, A = (rng.standard_normal(s) for s in ((8, 8), (12, 8), (2, 8)))
        inside = 0.1 * rng.standard_normal(8)
        h = np.maximum(rng.random(12) + 0.1, G @ inside + 0.1 * rng.random(12))
        P, q = L @ L.T / 8 + 0.1 * np.eye(8), rng.standard_normal(8)
        D, E, F = (10.0 ** rng.uniform(-power, power, k) for k in (8, 2, 12))
        rough = D[:, None] * P * D, q * D, E[:, None] * A * D, E * (A @ inside)
        parts.append(((P, q, A, A @ inside, G, h), (*rough, F[:, None] * G * D, h * F)))
        units.append(D)
    stack = lambda k: [jnp.asarray(np.stack(v)) for v in zip(*(p[k] for p in parts), strict=True)]
    plain, rough = solve_all(*stack(0)), solve_all(*stack(1))
    assert np.all(np.asarray(plain.converged))
    assert np.all(np.asarray(rough.converged))
    assert_agree(rough.x * np.stack(units), plain.x, 1e-9)


def test_what_is_left_undecided_is_said():
    x, u = cp.Variable(2, name="x"), cp.Parameter(2, name="u")
    layer = ProgramLayer(cp.Problem(cp.Minimize(0 * cp.sum(x)), [x >= 0, x <= u]))
    found = layer.solve(jnp.ones(2))
    assert found.result == RESULTS.not_unique
    assert np.all(np.isfinite(jax.jacrev(lambda u: layer.solve(u).variables["x"])(jnp.ones(2))))


def test_offsets_that_leave_no_digits_are_undecidable():
    """`q + c 1` with `sum x = 1` is the same program; at c = 1e16 the entries of q are gone."""
    q = jnp.array([0.3, -1.0, 0.2])
    make = lambda c: QuadraticProgram(jnp.eye(3), q + c, jnp.ones((1, 3)), jnp.ones(1))
    right = make(0.0).solve()
    for c in (0.0, 1e6):
        found = certify(make(c), make(c).solve().x, make(c).solve())
        assert found.verdict == "optimal"
        wrong = certify(make(c), right.x + jnp.array([1e-4, -1e-4, 0.0]), make(c).solve())
        assert wrong.verdict not in ("optimal", "near-optimal", "undecidable in float64")
    lost = certify(make(1e16), right.x, make(1e16).solve())
    assert lost.verdict == "undecidable in float64"
    assert "undecidable in float64" in str(lost)


@pytest.mark.parametrize("spread", [0.0, 2.0])
def test_the_interior_point_stops_by_itself(spread):
    rng, parts = np.random.default_rng(0), []
    for _ in range(300):
        L, D = rng.standard_normal((8, 8)), np.exp(spread * rng.standard_normal(8))
        P = D[:, None] * (L @ L.T / 8 + 0.1 * np.eye(8)) * D
        G, A = rng.standard_normal((12, 8)) * D, rng.standard_normal((2, 8)) * D
        inside = 0.1 * rng.standard_normal(8) / D
        h = np.maximum(rng.random(12) + 0.1, G @ inside + 0.1 * rng.random(12))
        parts.append((P, D * rng.standard_normal(8), A, A @ inside, G, h))
    batch = [jnp.asarray(np.stack(v)) for v in zip(*parts, strict=True)]
    by_fifty = [solve_all(*(v[k : k + 50] for v in batch)) for k in range(0, 300, 50)]
    found = jax.tree.map(lambda *v: jnp.concatenate(v), *by_fifty)  # the shape solved above
    assert np.max(np.asarray(found.steps)) <= 20
    assert np.max(np.asarray(found.measure)) <= 1e-12
    program = QuadraticProgram(*(v[0] for v in batch))
    again = program.solve(start=jax.tree.map(lambda v: v[0], found))
    assert int(again.steps) < int(found.steps[0])
    assert_agree(again.x, found.x[0], 1e-12)


@jax.jit
@jax.vmap
def solve_all(*parts):
    return QuadraticProgram(*parts).solve()
