r"""The Riccati sweep: linear dynamics, quadratic costs, cross and affine terms, varying in time.

    minimise  sum_k [ 1/2 x'Q x + x'S u + 1/2 u'R u + q.x + r.u ]_k + 1/2 x_K'Q_K x_K + q_K.x_K
    s.t.      x_{k+1} = A_k x_k + B_k u_k + c_k                            x_0 given

    V_k(x) = 1/2 x'P_k x + p_k.x + const      u_k = K_k x_k + k_k      costate  P_k x_k + p_k

P_k, p_k   value function, from the last stage to the first: d^3 a stage, K stages one after another
K_k, k_k   feedback and open-loop term            `associative` finds the same in log K levels

Only `R + B'P B` has to be positive definite; `Q` and `R` alone need not. Where it is not, no minimum
exists: what comes back is NaN, for the caller to see (`finite`).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hjcontrol._ground.shown import Shown
from hjcontrol.solvers.riccati.small import positive_solve, product


class Stage(Shown):
    """One stage, or all stages of one size with their number in front of every array."""

    A: Float[Array, "*stages after before"]
    B: Float[Array, "*stages after m"]
    c: Float[Array, "*stages after"]
    Q: Float[Array, "*stages before before"]
    S: Float[Array, "*stages before m"]
    R: Float[Array, "*stages m m"]
    q: Float[Array, "*stages before"]
    r: Float[Array, "*stages m"]


class Policy(Shown):
    """Value functions of every depth, and what to do at each stage."""

    P: Float[Array, "depths d d"]
    p: Float[Array, "depths d"]
    K: Float[Array, "stages m d"]
    k: Float[Array, "stages m"]

    def finite(self) -> Bool[Array, ""]:
        """Whether a minimum exists: every stage's `R + B'P B` had a Cholesky factor."""
        return jnp.all(jnp.isfinite(self.K)) & jnp.all(jnp.isfinite(self.k))


class LQR(Shown):
    """Stages of one size, their number in front, and the terminal cost `1/2 x'Q x + q.x`."""

    stages: Stage
    Q: Float[Array, "d d"]
    q: Float[Array, " d"]

    def __check_init__(self):
        s, d = self.stages, self.q.shape[-1]
        K, m = s.B.shape[0], s.B.shape[-1]
        expected = {"A": (K, d, d), "B": (K, d, m), "c": (K, d), "Q": (K, d, d)}
        expected |= {"S": (K, d, m), "R": (K, m, m), "q": (K, d), "r": (K, m)}
        for name, shape in expected.items():
            if getattr(s, name).shape != shape:
                raise ValueError(
                    f"LQR: `stages.{name}` must have shape {shape} ({K} stages, state {d}, control "
                    f"{m}); found {getattr(s, name).shape}."
                )


def gain(stage: Stage, P: Array, p: Array) -> tuple[Array, Array]:
    """`K` and `k` of one stage before a value function `P`, `p`."""
    at_control = stage.r + stage.B.T @ (P @ stage.c + p)
    back = product(stage.B.T, P)
    cross = stage.S.T + product(back, stage.A)
    both = jnp.concatenate([cross, at_control[:, None]], axis=1)
    found = -positive_solve(stage.R + product(back, stage.B), both)
    return found[:, :-1], found[:, -1]


def before(stage: Stage, P: Array, p: Array) -> tuple[Array, Array, Array, Array]:
    """Bellman's step: the value function before one stage from the one behind it, and the gain."""
    K, k = gain(stage, P, p)
    back = product(stage.A.T, P)
    cross = stage.S + product(back, stage.B)
    ahead = stage.Q + product(back, stage.A) + product(cross, K)
    slope = stage.q + stage.A.T @ (P @ stage.c + p) + cross @ k
    return 0.5 * (ahead + ahead.T), slope, K, k


def sequential(problem: LQR) -> Policy:
    """The sweep, stage after stage."""

    def body(carry: tuple[Array, Array], stage: Stage) -> tuple[tuple[Array, Array], tuple]:
        P, p, K, k = before(stage, *carry)
        return (P, p), (P, p, K, k)

    last = (problem.Q, problem.q)
    _, (P, p, K, k) = jax.lax.scan(body, last, problem.stages, reverse=True)
    P = jnp.concatenate([P, problem.Q[None]])
    return Policy(P, jnp.concatenate([p, problem.q[None]]), K, k)


def simulate(problem: LQR, policy: Policy, start: Array) -> tuple[Array, Array]:
    """States `(K+1, d)` and controls `(K, m)` of the closed loop from `start`."""

    def body(x: Array, at: tuple[Stage, Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        stage, K, k = at
        u = K @ x + k
        return stage.A @ x + stage.B @ u + stage.c, (x, u)

    final, (x, u) = jax.lax.scan(body, start, (problem.stages, policy.K, policy.k))
    return jnp.concatenate([x, final[None]]), u
