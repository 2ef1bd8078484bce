"""Weights tied in time, inputs that are given: against loops, closed forms, hand-written costates.

dJ/dtheta = sum_k dH_k/dtheta      e^{hA}, A^{-1}(e^{hA} - 1)B      associative scan = loop = semigroup
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import hjcontrol as hj
from hjcontrol.control import backpropagate, costate, hamiltonian
from hjcontrol.hamilton_jacobi import InitialData, evolve
from hjcontrol.networks import (
    GRU,
    LSTM,
    RNN,
    Chain,
    Dense,
    DiagonalSSM,
    FunctionStage,
    LogSemiring,
    ModuleStage,
    Output,
    SelfAttention,
    StateSpace,
    Tied,
    lift,
    readout,
)
from tests.agreement import assert_agree, disagreement

N, STEPS, IN, WIDTH = 3, 5, 2, 4
DRAW = np.random.default_rng(21)
U = jnp.asarray(DRAW.standard_normal((N, STEPS, IN)))
RHO = 0.03


def recurrent(cell, state, after=(), tied=True, **options):
    middle = [Tied(cell, STEPS)] if tied else [cell] * STEPS
    return hj.ControlProblem(
        [*middle, *after, readout(WIDTH, 2)],
        jnp.asarray(DRAW.standard_normal((N, *state))),
        np.arange(N) % 2,
        terminal=hj.control.softmax_cross_entropy,
        running=hj.control.Ridge(RHO),
        forcing=U,
        **options,
    )


def moved(weights, seed=3):
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda a: a + 0.3 * draw.standard_normal(a.shape), weights)


# ------------------------------------------------------------------------------------ tied, in time


def test_tied_weights_are_one_set_and_their_gradient_is_the_sum_over_time(key):
    """Against the same network with a weight set of its own at every step, all of them equal."""
    tied = recurrent(GRU(IN, WIDTH), (WIDTH,))
    loose = hj.ControlProblem(
        [GRU(IN, WIDTH)] * STEPS + [readout(WIDTH, 2)],
        tied.inputs,
        tied.targets,
        terminal=tied.terminal,
        running=tied.running,
        forcing=U,
    )
    weights = moved(tied.init(key))
    repeat = lambda a: jnp.broadcast_to(a, (STEPS, *a.shape[1:]))
    spread = (jax.tree.map(repeat, weights[0]), weights[1])
    value, states, p, gradient = jax.jit(lambda w: backpropagate(tied, w))(weights)
    apart, _, q, parts = jax.jit(lambda w: backpropagate(loose, w))(spread)
    assert_agree(p, q, 1e-14)
    ridge = 0.5 * RHO * sum(float(jnp.sum(a**2)) for a in jax.tree.leaves(weights[0]))
    assert_agree(apart - value, jnp.asarray((STEPS - 1) * ridge), 1e-13)  # counted once
    summed = jax.tree.map(
        lambda g, w: jnp.sum(g, 0) - (STEPS - 1) * RHO * w[0], parts[0], weights[0]
    )
    assert_agree(jax.tree.map(lambda a: a[0], gradient[0]), summed, 1e-13)
    last = jax.tree.map(lambda g, w: g[-1] - RHO * w[0], parts[0], weights[0])
    assert disagreement(last, summed) > 1e-3, "one step's slope is not the gradient"

    # The same by dH_k/dtheta, stage by stage, and the cost of the weights once.
    @jax.jit
    def by_stages(theta):
        slope = lambda k: jax.grad(
            lambda th: hamiltonian(tied, k, states[k], p[k + 1], th) - tied.weight_cost(th)
        )(theta)
        total = jax.grad(tied.weight_cost)(theta)
        for k in range(STEPS):
            total = jax.tree.map(jnp.add, total, slope(k))
        return total

    assert_agree(by_stages(jax.tree.map(lambda a: a[0], weights[0])), summed, 1e-13)
    unstacked = tied.chain.unstack(weights)
    assert len(unstacked) == len(tied.chain) == STEPS + 1
    assert_agree(tied.chain.stack(unstacked), weights, 0.0)


def test_a_scanned_recurrence_is_the_loop(key):
    for problem in (
        recurrent(RNN(IN, WIDTH), (WIDTH,)),
        recurrent(LSTM(IN, WIDTH), (2, WIDTH), [Output()]),
    ):
        weights = moved(problem.init(key))
        cell, theta = problem.chain[0], jax.tree.map(lambda a: a[0], weights[0])

        def loop(x, u, cell=cell, theta=theta):
            states = [x]
            for k in range(STEPS):
                states.append(cell.step(states[-1], theta, u[k]))
            return jnp.stack(states)

        states = jax.jit(jax.vmap(loop))(problem.inputs, jnp.asarray(U))
        found = jax.jit(lambda w, problem=problem: problem.rollout(w))(weights)
        assert_agree(found.runs[0], states[:, :-1], 1e-15)
        backwards = jax.jit(jax.vmap(loop))(problem.inputs, jnp.asarray(U[:, ::-1]))
        assert disagreement(found.runs[0], backwards[:, :-1]) > 1e-2


def test_newton_and_the_direct_method_solve_a_recurrence():
    """One stationary point by two solvers blind to each other; the multipliers are the costates."""
    problem = hj.ControlProblem(
        [Tied(RNN(1, 2), 3), readout(2, 1)],
        jnp.zeros((4, 2)),
        jnp.asarray([[0.3], [-0.5], [0.1], [0.8]]),
        terminal=hj.control.least_squares,
        running=hj.control.Ridge(0.05),
        forcing=DRAW.standard_normal((4, 3, 1)),
    )
    shapes = jax.eval_shape(problem.init, jax.eval_shape(lambda: jax.random.key(0)))
    start = moved(jax.tree.map(lambda a: jnp.full(a.shape, 0.2), shapes))
    newton = hj.solve(problem, hj.solvers.Newton(tol=1e-11), init=start)
    assert newton.stats["stationarity"] < 1e-11
    nearby = jax.tree.map(lambda a: 1.05 * a, newton.weights)
    direct = hj.solve(problem, hj.solvers.Direct(), init=nearby)
    assert_agree(direct.objective, newton.objective, 1e-11)
    assert_agree(direct.weights, newton.weights, 1e-7)
    assert jax.tree.leaves(direct.weights)[0].shape == (1, 2, 2)
    certificate = hj.verify(direct)
    assert certificate.agreement["backprop|pairing"] < 1e-11
    assert certificate.agreement["backprop|multipliers"] < 1e-7


# ------------------------------------------------------------------------------------ the LSTM, by hand


def lstm_costate(theta, x, u, p):
    """One step of the LSTM's costate and dH/dtheta, written by hand in NumPy."""
    h, c = x
    s = lambda a: 1 / (1 + np.exp(-a))
    a = theta.W @ h + theta.U @ u + theta.b
    i, f, o = (s(v) for v in np.split(a, 4)[:3])
    g = np.tanh(np.split(a, 4)[3])
    after = f * c + i * g
    t = np.tanh(after)
    p_h, p_c = p
    p_after = p_c + p_h * o * (1 - t**2)
    d = np.concatenate(
        [
            p_after * g * i * (1 - i),
            p_after * c * f * (1 - f),
            p_h * t * o * (1 - o),
            p_after * i * (1 - g**2),
        ]
    )
    return np.stack([theta.W.T @ d, f * p_after]), (np.outer(d, h), np.outer(d, u), d)


def test_the_hand_written_costate_of_the_lstm(key):
    problem = recurrent(LSTM(IN, WIDTH), (2, WIDTH), [Output()])
    weights = moved(problem.init(key))
    _, states, p, gradient = jax.jit(lambda w: backpropagate(problem, w))(weights)
    theta = jax.tree.map(lambda a: np.asarray(a[0]), weights[0])
    total = [RHO * theta.W, RHO * theta.U, RHO * theta.b]
    for n in range(N):
        q = np.asarray(p[STEPS][n])
        for k in reversed(range(STEPS)):
            q, slopes = lstm_costate(theta, np.asarray(states[k][n]), np.asarray(U[n, k]), q)
            assert_agree(q, np.asarray(p[k][n]), 1e-14)
            total = [a + b for a, b in zip(total, slopes, strict=True)]
    assert_agree([a[0] for a in jax.tree.leaves(gradient[0])], total, 1e-14)
    closed = theta._replace(W=0 * theta.W, b=theta.b - 100 * np.repeat([0, 0, 1, 0], WIDTH))
    u = np.asarray(U[0, 1])
    q, _ = lstm_costate(closed, np.asarray(states[1][0]), u, np.ones((2, WIDTH)))
    f = 1 / (1 + np.exp(-(closed.U @ u + closed.b)[WIDTH : 2 * WIDTH]))
    assert_agree(q[1], f, 1e-14)  # the cell alone: p = f p'


# ------------------------------------------------------------------------------------ state space


def test_zero_order_hold_is_exact():
    h = 0.7
    cell, A = StateSpace(IN, WIDTH, h), DRAW.standard_normal((WIDTH, WIDTH))
    B, x, u = DRAW.standard_normal((WIDTH, IN)), DRAW.standard_normal(WIDTH), np.asarray(U[0, 0])
    singular = A - np.outer(A @ A[0], A[0]) / (A[0] @ A[0])  # A[0] spans its kernel
    theta = cell.init(jax.random.key(0))

    @jax.jit
    def step(A, x, p):
        at = theta._replace(A=A, B=jnp.asarray(B))
        y, back = jax.vjp(lambda x: cell.step(x, at, jnp.asarray(u)), x)
        return y, back(p)[0]

    for matrix in (A, singular):
        y, p = step(jnp.asarray(matrix), jnp.asarray(x), jnp.ones(WIDTH))
        # Taylor's series of the flow, term by term: an independent exponential.
        term, want = x.copy(), x.copy()
        for k in range(1, 40):
            term = h / k * (matrix @ term + (B @ u if k == 1 else 0))
            want = want + term
        assert_agree(y, want, 1e-14)
        assert_agree(p, scipy.linalg.expm(h * matrix.T) @ np.ones(WIDTH), 1e-13)
    decay = scipy.linalg.expm(h * A)
    assert_agree(
        step(jnp.asarray(A), jnp.asarray(x), jnp.ones(WIDTH))[0],
        decay @ x + np.linalg.solve(A, (decay - np.eye(WIDTH)) @ (B @ u)),
        1e-13,
    )
    euler = x + h * (A @ x + B @ u)
    assert disagreement(euler, want) > 1e-2, "Euler is not exact"


def test_modes_by_associative_scan_by_loop_and_by_closed_form(key):
    cell = DiagonalSSM(IN, WIDTH, 0.6)
    theta = moved(cell.init(key))
    u, x = (
        jnp.asarray(DRAW.standard_normal((37, IN))),
        jnp.asarray(DRAW.standard_normal((2, WIDTH))),
    )

    def loop(theta, x, u):
        def body(x, v):
            x = cell.step(x, theta, v)
            return x, x

        return jax.lax.scan(body, x, u)[1]

    @jax.jit
    def both(theta, x, u):
        scan = lambda theta, x, u: cell.states(x, theta, u)
        slope = lambda f: jax.grad(lambda *a: jnp.sum(jnp.sin(f(*a))), argnums=(0, 1, 2))(
            theta, x, u
        )
        return loop(theta, x, u), scan(theta, x, u), slope(loop), slope(scan)

    looped, scanned, by_loop, by_scan = both(theta, x, u)
    assert_agree(looped, scanned, 1e-14)
    assert_agree(by_loop, by_scan, 1e-12)
    rate = -np.exp(np.asarray(theta.decay)) + 1j * np.asarray(theta.frequency)
    z, b = np.asarray(x[0] + 1j * x[1]), np.asarray(theta.B[0] + 1j * theta.B[1])
    for k in range(len(u)):
        grown = np.exp(0.6 * rate)
        z = grown * z + (grown - 1) / rate * (b @ np.asarray(u[k]))
        assert_agree(np.asarray(looped[k]), np.stack([z.real, z.imag]), 1e-13)
    halved = DiagonalSSM(IN, WIDTH, 0.3)
    twice = halved.step(halved.step(x, theta, u[0]), theta, u[0])
    assert_agree(twice, cell.step(x, theta, u[0]), 1e-14)  # a flow: two half steps are one


def test_the_log_semiring_recurrence_is_the_semigroup():
    nodes = np.linspace(-2, 2, 21)[:, None]
    masses = np.full(21, 0.2)
    g = jnp.asarray(np.abs(nodes[:, 0]) + DRAW.standard_normal(21) / 5)
    for eps in (0.4, 0.0):
        cell = LogSemiring(21, eps)

        @jax.jit
        def both(g, cell=cell, eps=eps):
            theta = cell.heat(jnp.asarray(nodes), jnp.asarray(masses), 0.3)
            chain = Chain([Tied(cell, 4)], g)
            K = hj.hamilton_jacobi.kernel(jnp.asarray(nodes), jnp.asarray(nodes), 0.3, eps)
            u = g
            for _ in range(4):
                u = evolve(K, InitialData(nodes, u, masses), eps)
            return chain((theta[None],), g), u

        found, want = both(g)
        assert_agree(found, want, 1e-14)
        assert disagreement(found, g) > 1e-2
    wide = np.linspace(-8, 8, 161)[:, None]
    cell = LogSemiring(161, 0.3)  # S_1/2 S_1/2 = S_1, once the nodes resolve the kernels
    A = [cell.heat(jnp.asarray(wide), jnp.full(161, 0.1), t) for t in (0.5, 1.0)]
    data = jnp.asarray(0.5 * wide[:, 0] ** 2)
    step = jax.jit(lambda x, theta: cell.step(x, theta))
    inside = slice(60, 101)
    assert_agree(step(step(data, A[0]), A[0])[inside], step(data, A[1])[inside], 1e-9)


def test_a_gru_step_is_a_two_atom_gibbs_mean(key):
    cell = GRU(IN, WIDTH)
    theta, x, u = moved(cell.init(key)), jnp.asarray(DRAW.standard_normal(WIDTH)), U[0, 0]
    z, g = cell.gates(x, theta, u)
    logits = jnp.stack([jnp.zeros_like(z), jnp.log(z / (1 - z))], axis=1)
    weights = hj.deformation.gibbs(logits, 1.0)
    assert_agree(cell.step(x, theta, u), jnp.sum(weights * jnp.stack([x, g], axis=1), 1), 1e-14)


# ------------------------------------------------------------------------------------ what is refused


def cut(x, u):
    return jnp.concatenate([x, u])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: recurrent(FunctionStage(cut, reads="forcing"), (WIDTH,)),
            r"stage 0 \(FunctionStage\) is tied over 5.*float64\[4\] before.*float64\[6\] after.*`lift`",
        ),
        (
            lambda: hj.ControlProblem([Tied(Dense(3, 2), 2)], jnp.ones((2, 3)), terminal=jnp.sum),
            r"must keep its state's shape; found float64\[3\] before and float64\[2\] after",
        ),
        (
            lambda: hj.ControlProblem(
                [Tied(RNN(IN, 3), 4)], jnp.ones((N, 3)), terminal=jnp.sum, forcing=U
            ),
            "4 stages read the forcing.*must have 4 steps; found 5. Pad or cut",
        ),
        (
            lambda: hj.ControlProblem(
                [Tied(RNN(IN, 3), 5)],
                jnp.ones((N, 3)),
                terminal=jnp.sum,
                forcing=[np.ones((5, IN)), np.ones((4, IN)), np.ones((5, IN))],
            ),
            "sequences of `forcing` must have one length.*found 4, 5. Pad or cut them",
        ),
        (
            lambda: hj.ControlProblem([Tied(RNN(IN, 3), 5)], jnp.ones((N, 3)), terminal=jnp.sum),
            r"stage 0 \(RNN\) reads a forcing; found none. Pass `forcing=`, with 5 steps",
        ),
        (
            lambda: hj.ControlProblem(
                [Tied(RNN(IN, 3), 5)], jnp.ones((2, 3)), terminal=jnp.sum, forcing=U
            ),
            r"every leaf of `forcing` must have 2 samples in front; found shape \(3, 5, 2\)",
        ),
        (
            lambda: hj.ControlProblem(
                [SelfAttention(4)],
                jnp.ones((2, 3, 4)),
                terminal=jnp.sum,
                context=np.array([[True, True, False], [False, False, False]]),
            ),
            r"the mask hides every key at \[1\] \(1 such rows\)",
        ),
        (
            lambda: hj.ControlProblem(
                [lift(3, 2)], jnp.ones((2, 3)), terminal=jnp.sum, context=np.ones((2, 3), bool)
            ),
            "a `context` was given, and no stage reads it",
        ),
        (lambda: Tied(GRU(2, 3), 0), "`times` must be >= 1; found 0"),
        (lambda: GRU(0, 3), "GRU: `in_size` must be >= 1; found 0"),
        (lambda: DiagonalSSM(2, 3, -1.0), "`h` must be a positive scalar; found -1.0"),
        (
            lambda: Chain([Tied(Dense(3, 3), 2)], jnp.ones(3)).stack(
                [Dense(3, 3).init(jax.random.key(k)) for k in range(2)]
            ),
            "stages 0 to 1 are tied, so their weights must be equal",
        ),
    ],
)
def test_wrong_recurrences_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_users_pieces_may_read_too(key):
    import equinox as eqx

    class Leaky(eqx.Module):
        W: jax.Array

        def __call__(self, x, u):
            return 0.9 * x + jnp.tanh(self.W @ u)

    W = jnp.asarray(DRAW.standard_normal((WIDTH, IN)))
    stages = [ModuleStage(Leaky(W), reads="forcing")] * STEPS
    problem = hj.ControlProblem(
        [*stages, readout(WIDTH, 2)],
        jnp.zeros((N, WIDTH)),
        terminal=lambda x: jnp.sum(x**2),
        forcing=U,
    )
    assert [run.length for run in problem.chain.runs] == [STEPS, 1]
    weights = problem.init(key)
    want = np.zeros((N, WIDTH))
    for k in range(STEPS):
        want = 0.9 * want + np.tanh(np.asarray(U[:, k]) @ np.asarray(W).T)
    assert_agree(
        jax.jit(lambda w, problem=problem: problem.rollout(w))(weights)[STEPS], want, 1e-15
    )
    assert_agree(costate(problem, weights)[1], jax.grad(problem.objective)(weights), 1e-14)
