r"""The Riccati sweep in parallel over depth: an associative scan of conditional value functions.

    V(x, z) = max_l [ 1/2 x'J x - eta.x - 1/2 l'C l - l.(z - A x - b) ]     cost of going from x to z

A, b, C, eta, J   of one stage, and of any stretch of stages: two stretches combine into one
V_k(x)            of the stages k .. K: 1/2 x'J x - eta.x, so  P = J,  p = -eta

The combination is associative, so all `V_k` follow in `O(log K)` levels instead of `K` steps: upwards,
pairs of stretches are combined; downwards, a stretch takes the value behind it to the one before it,
which asks less than a combination and at the stages themselves is Bellman's step, gains included.
The closed loop likewise, by affine maps. Work: about `K` combinations and `K / 2` such steps, a few
times the sequential sweep's, so the span pays only where there is parallel hardware. Each `R_k` must
be positive definite by itself.

Source: Sarkka & Garcia-Fernandez, "Temporal parallelization of dynamic programming and linear
quadratic control", IEEE TAC 68 (2023).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from hjcontrol.solvers.riccati.lqr import LQR, Policy, Stage, before, gain
from hjcontrol.solvers.riccati.small import positive_solve, product, solve

Stretch = tuple[Array, Array, Array, Array, Array]  # A, b, C, eta, J
Value = tuple[Array, Array]  # eta, J
Affine = tuple[Array, Array]  # F, f


def combine(early: Stretch, late: Stretch) -> Stretch:
    """The stretch `early` followed by `late`, one of each."""
    A, b, C, eta, J = early
    A2, b2, C2, eta2, J2 = late
    d = A.shape[-1]
    right = jnp.concatenate([A, (b + C @ eta2)[:, None], C], axis=1)
    found = solve(jnp.eye(d, dtype=A.dtype) + product(C, J2), right)
    through, moved, spread = found[:, :d], found[:, d], found[:, d + 1 :]
    C = product(product(A2, spread), A2.T) + C2
    J = product(A.T, product(J2, through)) + J
    return (
        product(A2, through),
        A2 @ moved + b2,
        0.5 * (C + C.T),
        through.T @ (eta2 - J2 @ b) + eta,
        0.5 * (J + J.T),
    )


def ahead(stretch: Stretch, value: Value) -> Value:
    """The value before a stretch from the one behind it: `combine` with an end that leads nowhere."""
    A, b, C, eta, J = stretch
    eta2, J2 = value
    through = solve(jnp.eye(A.shape[-1], dtype=A.dtype) + product(C, J2), A)
    J = product(A.T, product(J2, through)) + J
    return through.T @ (eta2 - J2 @ b) + eta, 0.5 * (J + J.T)


def stretch(stage: Stage) -> Stretch:
    """One stage by itself: its control eliminated for given ends."""
    right = jnp.concatenate([stage.S.T, stage.r[:, None], stage.B.T], axis=1)
    found = positive_solve(stage.R, right)
    d = stage.A.shape[-1]
    feedback, offset, spread = found[:, :d], found[:, d], found[:, d + 1 :]
    return (
        stage.A - product(stage.B, feedback),
        stage.c - stage.B @ offset,
        product(stage.B, spread),
        stage.S @ offset - stage.q,
        stage.Q - product(stage.S, feedback),
    )


def _woven(first: Any, second: Any) -> Any:
    """Entries of both by turns; `first` has as many, or one more."""

    def one(a: Array, b: Array) -> Array:
        n = len(b)
        both = jnp.stack([a[:n], b], axis=1).reshape(2 * n, *a.shape[1:])
        return jnp.concatenate([both, a[n:]]) if len(a) > n else both

    return jax.tree.map(one, first, second)


def _halves(elements: Any) -> tuple[Any, Any, int]:
    """Elements paired from the last: the first and the second of each pair, an unpaired one among the
    second; and how many are unpaired, 0 or 1."""
    odd = len(jax.tree.leaves(elements)[0]) % 2
    early = jax.tree.map(lambda a: a[odd::2], elements)
    return early, jax.tree.map(lambda a: a[1 - odd :: 2], elements), odd


def _met(combine: Callable, act: Callable, elements: Any, end: Any) -> Any:
    """`v_k = act(element_k, v_{k+1})` at every `k`, from `v_K = end`, in `O(log K)` levels.
    `combine(e, f)` acts as `f`, then as `e`."""
    early, late, odd = _halves(elements)
    paired = jax.tree.map(lambda a: a[odd:], late)
    if len(jax.tree.leaves(early)[0]) == 0:
        at = jax.tree.map(lambda a: a[None], end)
    else:
        at = _met(combine, act, jax.vmap(combine)(early, paired), end)
    between = jax.vmap(act)(late, jax.tree.map(lambda a: a[1 - odd :], at))
    return _woven(between, at) if odd else _woven(at, between)


def parallel(problem: LQR) -> Policy:
    """The same policy as `lqr.sequential`, in a number of levels logarithmic in depth."""
    early, late, odd = _halves(problem.stages)
    end = (-problem.q, problem.Q)
    if len(early.A) == 0:
        at = jax.tree.map(lambda a: a[None], end)
    else:
        stretches = jax.vmap(stretch)(problem.stages)
        first, second, _ = _halves(stretches)
        second = jax.tree.map(lambda a: a[odd:], second)
        at = _met(combine, ahead, jax.vmap(combine)(first, second), end)
    at = (at[1], -at[0])
    P, p, K, k = jax.vmap(before)(late, *(a[1 - odd :] for a in at))
    of_early = jax.vmap(gain)(early, P[odd:], p[odd:])
    if odd:
        return Policy(*_woven((P, p), at), *_woven((K, k), of_early))
    return Policy(*_woven(at, (P, p)), *_woven(of_early, (K, k)))


def simulate(problem: LQR, policy: Policy, start: Array) -> tuple[Array, Array]:
    """States and controls of the closed loop, by a scan of the affine maps `x -> F x + f`."""
    s = problem.stages
    maps = s.A + jax.vmap(product)(s.B, policy.K), s.c + (s.B @ policy.k[..., None])[..., 0]

    def after(late: Affine, early: Affine) -> Affine:
        return product(late[0], early[0]), late[0] @ early[1] + late[1]

    def move(by: Affine, x: Array) -> Array:
        return by[0] @ x + by[1]

    backwards = jax.tree.map(lambda a: a[::-1], maps)
    x = _met(after, move, backwards, start)[::-1]
    return x, (policy.K @ x[:-1, :, None])[..., 0] + policy.k
