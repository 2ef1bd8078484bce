r"""The Riccati sweep in parallel over depth: an associative scan of conditional value functions.

    V(x, z) = max_l [ 1/2 x'J x - eta.x - 1/2 l'C l - l.(z - A x - b) ]     cost of going from x to z

A, b, C, eta, J   of one stage, and of any stretch of stages: two stretches combine into one
V_k(x)            from the stretch k .. K: 1/2 x'J x - eta.x, so  P = J,  p = -eta

The combination is associative, so all `V_k` follow in `O(log K)` levels instead of `K` steps; the
gains of all stages then at once, and the closed loop by a second scan, of affine maps. Work: about
twice `K` combinations of `O(d^3)` with larger constants than the sequential step's, so the span pays
only where there is parallel hardware. Each `R_k` must be positive definite by itself.

Source: Sarkka & Garcia-Fernandez, "Temporal parallelization of dynamic programming and linear
quadratic control", IEEE TAC 68 (2023).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from hjcontrol.solvers.riccati.lqr import LQR, Policy, Stage, gain

Stretch = tuple[Array, Array, Array, Array, Array]  # A, b, C, eta, J


def combine(late: Stretch, early: Stretch) -> Stretch:
    """The stretch `early` followed by `late`, one of each; arguments in the order of a reverse scan."""
    A, b, C, eta, J = early
    A2, b2, C2, eta2, J2 = late
    d = A.shape[-1]
    right = jnp.concatenate([A, (b + C @ eta2)[:, None], C], axis=1)
    found = jnp.linalg.solve(jnp.eye(d, dtype=A.dtype) + C @ J2, right)
    through, moved, spread = found[:, :d], found[:, d], found[:, d + 1 :]
    C = A2 @ spread @ A2.T + C2
    J = A.T @ (J2 @ through) + J
    return (
        A2 @ through,
        A2 @ moved + b2,
        0.5 * (C + C.T),
        through.T @ (eta2 - J2 @ b) + eta,
        0.5 * (J + J.T),
    )


def stretch(stage: Stage) -> Stretch:
    """One stage by itself: its control eliminated for given ends."""
    factor = (jnp.linalg.cholesky(stage.R), True)
    right = jnp.concatenate([stage.S.T, stage.r[:, None], stage.B.T], axis=1)
    found = jax.scipy.linalg.cho_solve(factor, right)
    d = stage.A.shape[-1]
    feedback, offset, spread = found[:, :d], found[:, d], found[:, d + 1 :]
    return (
        stage.A - stage.B @ feedback,
        stage.c - stage.B @ offset,
        stage.B @ spread,
        stage.S @ offset - stage.q,
        stage.Q - stage.S @ feedback,
    )


def parallel(problem: LQR) -> Policy:
    """The same policy as `lqr.sequential`, in a number of levels logarithmic in depth."""
    zero = jnp.zeros_like(problem.Q)
    last = (zero, jnp.zeros_like(problem.q), zero, -problem.q, problem.Q)
    stages = jax.vmap(stretch)(problem.stages)
    elements = jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), stages, last)
    found = jax.lax.associative_scan(jax.vmap(combine), elements, reverse=True)
    P, p = found[4], -found[3]
    K, k = jax.vmap(gain)(problem.stages, P[1:], p[1:])
    return Policy(P, p, K, k)


def simulate(problem: LQR, policy: Policy, start: Array) -> tuple[Array, Array]:
    """States and controls of the closed loop, by a scan of the affine maps `x -> F x + f`."""
    s = problem.stages
    F = s.A + s.B @ policy.K
    f = s.c + (s.B @ policy.k[..., None])[..., 0]

    def follow(early: tuple[Array, Array], late: tuple[Array, Array]) -> tuple[Array, Array]:
        return late[0] @ early[0], late[0] @ early[1] + late[1]

    F, f = jax.lax.associative_scan(jax.vmap(follow), (F, f))
    x = jnp.concatenate([start[None], F @ start + f])
    return x, (policy.K @ x[:-1, :, None])[..., 0] + policy.k
