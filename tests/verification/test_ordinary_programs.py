"""Programs as people write them, right and wrong, on which the witness was once mistaken."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj

SINGLE = jnp.float32
normal = lambda seed, *shape: jax.random.normal(jax.random.key(seed), shape, SINGLE)


def ruled(primal, backward):
    """`primal` with the rule `backward(arguments, p)`."""

    @jax.custom_vjp
    def own(*args):
        return primal(*args)

    own.defvjp(lambda *args: (primal(*args), args), backward)
    return own


# ------------------------------------------------------------------ loops in a primal, under vmap


def iterated(factor):
    """The fixed point of `tanh(W z + x)`, its loop of no fixed length, with the implicit rule."""

    def primal(W, x):
        far = lambda c: jnp.max(jnp.abs(c[0] - c[1])) > 1e-6  # run on, the gap closes
        turn = lambda c: (c[1], jnp.tanh(W @ c[1] + x))
        return jax.lax.while_loop(far, turn, (jnp.zeros_like(x), jnp.tanh(x)))[1]

    def backward(args, g):
        W, z = args[0], primal(*args)
        D = 1 - z**2
        u = jnp.linalg.solve((jnp.eye(len(z)) - D[:, None] * W).T, g)
        return factor * jnp.outer(u * D, z), u * D

    return ruled(primal, backward)


@pytest.mark.parametrize("costate", ["both", "random"])
def test_a_batch_of_loops_each_with_an_end_of_its_own(costate):
    W, x = 0.2 * normal(0, 4, 4).astype(float), normal(1, 3, 4).astype(float)
    x = x * jnp.asarray([[0.01], [1.0], [3.0]])  # so that they end at different turns
    batched = lambda factor: jax.vmap(iterated(factor), (None, 0))
    total = lambda factor: lambda W, x: jnp.mean(batched(factor)(W, x) ** 2)
    right, wrong = (hj.verify(total(c), W, x, costate=costate) for c in (1.0, 1.01))
    assert right
    assert right.rows[0].gap < 1e-9
    assert not wrong
    assert wrong.rows[0].gap > 1e-3
    assert "nan" not in f"{right}{wrong}"


def test_the_values_of_a_replayed_batch_of_loops_are_the_program_s():
    """Twin: carried on until the last has ended, the others count too far."""
    from hjcontrol._ground.jaxprs import bind, replay, while_parts

    count = lambda n: jax.lax.while_loop(lambda c: c[0] < c[1], lambda c: (c[0] + 1, c[1]), (0, n))
    closed = jax.make_jaxpr(lambda n: jax.vmap(count)(n)[0])(jnp.arange(5))

    def rule(eqn, inputs, ended=True):
        if eqn.primitive.name != "while":
            return bind(eqn, inputs)
        return jax.lax.while_loop(*while_parts(eqn, inputs, bind, ended))

    assert np.array_equal(replay(closed, [jnp.arange(5)], rule)[0], np.arange(5))
    onward = functools.partial(rule, ended=False)
    assert np.array_equal(replay(closed, [jnp.arange(5)], onward)[0], [4] * 5)


@pytest.mark.parametrize(("slope", "verdict"), [(1.0, "exact"), (0.9, "refuted")])
def test_a_root_from_a_number_of_python_s(slope, verdict):
    def solve(f, start):
        newton = lambda x: x - f(x) / jax.grad(f)(x)
        return jax.lax.while_loop(lambda x: jnp.abs(f(x)) > 1e-14, newton, start)

    tangent = lambda g, y: slope * y / g(1.0)
    root = lambda a: jax.lax.custom_root(lambda x: x**3 + a * x - 1.0, 0.5, solve, tangent)
    assert hj.verify(lambda a: root(a[0]) ** 2, jnp.asarray([1.0, 2.0])).verdict == verdict


# ------------------------------------------------------------------ iterations of fixed length


def sinkhorn(turns, factor=1.0):
    """Entropic transport, so many turns, with the envelope's rule: that of the limit."""

    def potentials(C):
        m, n = C.shape

        def turn(_, fg):
            f = -0.3 * jax.nn.logsumexp((fg[1][None] - C) / 0.3 - jnp.log(n), 1)
            return f, -0.3 * jax.nn.logsumexp((f[:, None] - C) / 0.3 - jnp.log(m), 0)

        return jax.lax.fori_loop(0, turns, turn, (jnp.zeros(m), jnp.zeros(n)))

    def backward(args, p):
        (C,), (f, g) = args, potentials(*args)
        return (factor * p * jnp.exp((f[:, None] + g[None] - C) / 0.3) / C.size,)

    return ruled(lambda C: sum(map(jnp.mean, potentials(C))), backward)


def test_an_iteration_of_fixed_length_with_the_rule_of_its_limit_is_consistent_and_says_how_far():
    C = jnp.abs(normal(3, 4, 3).astype(float))
    short, long = (hj.verify(sinkhorn(n), C) for n in (12, 200))
    assert (short.verdict, long.verdict) == ("consistent", "exact")
    off = jax.grad(sinkhorn(12))(C) - jax.grad(sinkhorn(12).__wrapped__)(C)
    assert short.rows[0].gap > 1e-7  # the truth: the gradient is off
    assert not short
    assert 0.01 < short.rows[0].gap / float(jnp.max(jnp.abs(off)) * C.size) < 100
    assert "fixed length" in str(short)
    assert hj.verify(sinkhorn(12, 1.01), C).verdict == "refuted"
    assert hj.verify(sinkhorn(200, 1 + 1e-7), C).verdict == "refuted"


# ------------------------------------------------------------------ roundoff that hides a fault


def likelihood(scale):
    """A Gaussian process's, its log-determinant's derivative `scale` times the right one."""

    def primal(K, y):
        L = jnp.linalg.cholesky(K)
        return 0.5 * y @ jax.scipy.linalg.cho_solve((L, True), y) + jnp.sum(jnp.log(jnp.diag(L)))

    def backward(args, p):
        K, y = args
        L = jnp.linalg.cholesky(K)
        a = jax.scipy.linalg.cho_solve((L, True), y)
        inverse = jax.scipy.linalg.cho_solve((L, True), jnp.eye(len(y), dtype=K.dtype))
        return 0.5 * p * (scale * inverse - jnp.outer(a, a)), p * a

    return ruled(primal, backward)


def standardised(factor):
    primal = lambda x: (x - x.mean()) / x.std()

    def backward(args, p):
        h = primal(*args)
        return ((p - p.mean() - factor * h * (p * h).mean()) / args[0].std(),)

    return lambda x: jnp.sum(ruled(primal, backward)(x) ** 3)


points = jnp.linspace(0, 1, 10, dtype=SINGLE)
KERNEL = jnp.exp(-0.5 * ((points[:, None] - points[None]) / 0.3) ** 2) + 1e-4 * jnp.eye(
    10, dtype=SINGLE
)
HILBERT = 1 / (1 + jnp.arange(7, dtype=SINGLE)[:, None] + jnp.arange(7, dtype=SINGLE)[None])


def solved(factor):
    primal = lambda A, b: jnp.linalg.solve(A, b)

    def backward(args, p):
        right = jnp.linalg.solve(args[0].T, p)
        return -factor * jnp.outer(right, primal(*args)), right

    return lambda A, b: jnp.sum(ruled(primal, backward)(A, b) ** 2)


ILL = {
    "a Gaussian process of condition 1e5": (likelihood, 1.03, (KERNEL, jnp.sin(5 * points))),
    "a mean of 1e4 and a deviation of .1": (standardised, 1.5, (1e4 + 0.1 * normal(1, 20),)),
    "a system of condition 1e8": (solved, 1.02, (HILBERT, HILBERT @ jnp.ones(7, SINGLE))),
}


@pytest.mark.parametrize("name", ILL)
def test_in_32_bits_a_fault_below_the_roundoff_is_found_in_64(name):
    make, wrong, args = ILL[name]
    right = hj.verify(make(1.0), *args)
    assert right.verdict in ("exact", "consistent")
    assert right.verdict == "exact" or "roundoff hides" in str(right)
    assert hj.verify(make(wrong), *args).verdict == "refuted"


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.0, "consistent"), (1 + 1e-8, "consistent"), (1.5, "refuted")]
)
def test_in_64_bits_what_roundoff_may_hide_is_said(factor, verdict):
    n = jnp.arange(9.0)
    A = 1 / (1 + n[:, None] + n[None])  # its condition is 5e11
    found = hj.verify(solved(factor), A, A @ jnp.ones(9))
    assert found.verdict == verdict
    assert verdict == "refuted" or "roundoff hides a fault of up to" in str(found)


# ------------------------------------------------------------------ below 32 bits


def embedded(factor):
    def backward(args, p):
        table, at = args
        zero = np.zeros(at.shape, jax.dtypes.float0)
        return jnp.zeros_like(table).at[at].add((factor * p).astype(table.dtype)), zero

    return ruled(lambda table, at: table[at], backward)


def scaled(factor):
    one = lambda x: x.at[0].multiply(jnp.asarray(0.5, x.dtype))
    return ruled(lambda x: one(2 * x), lambda x, p: (factor * one(2 * p),))


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "exact"), (2.0, "refuted")])
def test_a_scatter_in_bfloat16_is_replayed_in_64_bits(factor, verdict):
    table, at = normal(0, 5, 3).astype(jnp.bfloat16), jnp.asarray([1, 3, 1])
    total = lambda table: jnp.sum(embedded(factor)(table, at).astype(SINGLE) ** 2)
    assert hj.verify(total, table).verdict == verdict
    total = lambda table: jnp.sum(scaled(factor)(table).astype(SINGLE) ** 2)
    assert hj.verify(total, table).verdict == verdict


# ------------------------------------------------------------------ what is right, and was not believed


def test_a_rule_of_a_primal_that_does_not_change_is_right_to_give_nothing():
    assert hj.verify(lambda x: jnp.sum(jnp.sinc(x)), jnp.asarray([0.0, 0.5])).verdict == "exact"
    flat = lambda x: 0.0 * x + 1.0
    gives = lambda c: ruled(flat, lambda x, p: (c * p,))
    assert hj.verify(lambda x: jnp.sum(gives(0.0)(x)), jnp.ones(3)).verdict == "exact"
    assert hj.verify(lambda x: jnp.sum(gives(0.1)(x)), jnp.ones(3)).verdict == "refuted"
    whole = ruled(lambda x: x.astype(int).astype(float), lambda x, p: (0.0 * p,))
    assert hj.verify(lambda x: jnp.sum(whole(x)), jnp.full(3, 0.3)).verdict == "untested"


@pytest.mark.parametrize(("factor", "wrong"), [(0.0, False), (0.1, True)])
def test_a_derivative_that_is_not_finite_does_not_speak_against_many_elements(factor, wrong):
    """The determinant of a matrix of rank one: zero, and so is its derivative."""
    det = ruled(
        lambda A: jnp.prod(jnp.diag(jnp.linalg.qr(A)[1])), lambda A, p: (factor * p + 0 * A[0],)
    )
    # Whether the derivative of the decomposition is finite there is a matter of LAPACK's roundoff.
    verdicts = ("refuted",) if wrong else ("consistent", "untested")
    assert hj.verify(det, jnp.ones((5, 5))).verdict in verdicts
    assert hj.verify(jnp.linalg.det, jnp.ones((5, 5))).verdict == "consistent"


def test_ties_of_large_numbers_are_judged_within_the_roundoff_of_the_rule():
    low = jnp.full((2, 3), -1e5, SINGLE)
    total = lambda f: lambda a, b: jnp.sum(jnp.sin(f(a, b) / 1e4))
    assert hj.verify(total(jnp.logaddexp), low, low).verdict == "exact"
    both = ruled(jnp.maximum, lambda ab, p: (p * (ab[0] >= ab[1]), p * (ab[1] >= ab[0])))
    assert hj.verify(total(both), low, low).verdict == "refuted"  # a full share for each

    def in_turns(ab, p):  # the same rule, in a loop: how it rounds is not known
        one = jax.lax.while_loop(lambda c: c[0] < 1, lambda c: (c[0] + 1, c[1]), (0, p))[1]
        return one * (ab[0] >= ab[1]), one * (ab[1] >= ab[0])

    assert hj.verify(total(ruled(jnp.maximum, in_turns)), low, low).verdict == "refuted"


def test_cuts_that_take_what_adds_up_to_nothing():
    def shifted(share):
        def fn(x):
            held = jax.lax.stop_gradient(jnp.mean(x))
            return jnp.log(jnp.sum(jnp.exp(x - held))) + share * jax.lax.stop_gradient(jnp.mean(x))

        return fn

    x = jnp.asarray([0.2, 0.7, 1.5])
    assert hj.verify(shifted(1.0), x).verdict == "exact"
    assert hj.verify(shifted(1.01), x).verdict == "detached"

    def counted(x):  # what they cut has no derivative
        steps = jax.lax.while_loop(lambda c: c < x[0], lambda c: 2 * c, 0.01)
        return jnp.sum(x) * jax.lax.stop_gradient(steps) + jax.lax.stop_gradient(x[1]) * x[2]

    assert hj.verify(counted, x).verdict == "detached"


@pytest.mark.parametrize("solver", ["cg", "bicgstab"])
@pytest.mark.parametrize("tol", [1e-5, 1e-12])
def test_a_solver_of_jax_s_is_not_refuted_at_its_own_tolerance(solver, tol):
    A, b = normal(1, 5, 5), normal(2, 5)
    A = (A @ A.T + 5 * jnp.eye(5, dtype=SINGLE)) / 30 + jnp.eye(5, dtype=SINGLE)
    solve = getattr(jax.scipy.sparse.linalg, solver)
    found = hj.verify(lambda A, b: jnp.sum(solve(A, b, tol=tol)[0] ** 2), A, b)
    assert found.verdict in ("exact", "consistent")


@pytest.mark.parametrize("name", ["expi", "exp1"])
def test_special_functions_that_choose_between_loops(name):
    function = getattr(jax.scipy.special, name)
    x = jnp.asarray([0.3, 1.2, 2.7], SINGLE)
    assert hj.verify(lambda x: jnp.sum(function(x)), x).verdict in ("exact", "consistent")


def test_a_branch_of_diffrax_s_that_is_not_taken_is_not_the_user_s():
    diffrax = pytest.importorskip("diffrax")

    def final(w):
        found = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, w: -w * y),
            diffrax.Tsit5(),
            0.0,
            1.0,
            0.1,
            jnp.ones(2),
            w,
            stepsize_controller=diffrax.PIDController(1e-6, 1e-6),
            adjoint=diffrax.DirectAdjoint(),
            max_steps=16,
        )
        return jnp.sum(found.ys**2)

    found = hj.verify(final, jnp.asarray(0.7))
    assert found.verdict == "exact"
    assert not any("not run" in row.reason for row in found.rows)


# ------------------------------------------------------------------ what is said


def test_an_output_that_is_not_used_is_said_to_be_untested():
    two = ruled(lambda x: (jnp.sin(x), jnp.sum(x**2)), lambda x, p: (p[0] * jnp.cos(x[0]),))
    x = jnp.asarray([0.2, 0.5])
    found = hj.verify(lambda x: jnp.sum(two(x)[0]), x)
    assert found.verdict == "exact"
    assert "output 1 is not used here" in str(found)
    assert hj.verify(lambda x: jnp.sum(two(x)[0]) + two(x)[1], x).verdict == "refuted"


def test_an_error_of_the_library_s_own_is_not_blamed_on_the_function(monkeypatch):
    from hjcontrol.verification import function

    def broken(*args, **kwargs):
        raise AttributeError("no such field")

    monkeypatch.setattr(function, "examine", broken)
    sine = ruled(jnp.sin, lambda x, p: (p * jnp.cos(x[0]),))
    with pytest.raises(RuntimeError, match=r"hjcontrol's own.*no such field.*report"):
        hj.verify(lambda x: jnp.sum(sine(x)), jnp.ones(2))
    deaf = ruled(jnp.sin, lambda x, p: {}["missing"])
    with pytest.raises(ValueError, match="cannot be differentiated here"):
        hj.verify(lambda x: jnp.sum(deaf(x)), jnp.ones(2))
