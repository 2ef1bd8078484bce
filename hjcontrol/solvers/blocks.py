r"""Curvature of J in one stage's weights, the others fixed: the blocks of a preconditioner.

    P_K = d2 Phi / n          P_k = d2/dx2 [ l/n + p.F + 1/2 |F - F_k|^2_{P_{k+1}} ]   per sample
    B_k = d2 r + sum_i d2/dtheta2 [ p^i.F + 1/2 |F - F_k|^2_{P_{k+1}^i} ]              per stage
    tied stages: the sum of their blocks, r once; couplings of step with step are left to Krylov

P   Hessian of one sample's cost-to-go, weights fixed     B   exact diagonal block of d2J/dtheta2

Where the weights enter through `a = W x + b`, the sum is a contraction of the Hessian in `a` with the
features `(x, 1)`: one matrix product instead of a Hessian in the weights. A block larger than
`LARGEST` becomes its Kronecker factors (affine stages) or its mean diagonal, and P is formed on at
most `ENTRIES / d^2` samples: only the preconditioner is approximate, never the curvature itself.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from hjcontrol.control import ControlProblem, Trajectory
from hjcontrol.networks import AbstractStage, AffineWeights, Run, Weights, advance
from hjcontrol.solvers.contraction import contraction

LARGEST = 1536  # weights in a dense block
ENTRIES = 8_000_000  # numbers in all samples' P, or in all samples' products of features

Vector = Float[Array, " m"]


Factors = tuple[Any, ...]  # of the blocks, one entry a run of stages


def preconditioner(
    problem: ControlProblem, weights: Weights, states: Trajectory, costates: Trajectory
) -> Callable[[Weights], Weights]:
    """The map `v -> B^{-1} v`, block by block, from the states and costates at `weights`."""
    factors = factored(problem, weights, states, costates)
    return lambda v: solved(factors, v)


def solved(factors: Factors, v: Weights) -> Weights:
    """`B^{-1} v`."""
    return tuple(jax.vmap(_solve)(f, part) for f, part in zip(factors, v, strict=True))


def factored(
    problem: ControlProblem, weights: Weights, states: Trajectory, costates: Trajectory
) -> Factors:
    """The blocks at `weights`, factored."""
    n = problem.num_samples
    count = max(1, min(n, ENTRIES // _largest_square(problem, weights, states)))
    some = jax.tree.map(lambda a: a[:count], (states, costates, problem.targets))
    states, costates, targets = some
    scale = n / count

    def terminal(x: Any, y: Any) -> Float[Array, ""]:
        return problem.terminal_cost(x, y) / n

    P = jax.vmap(lambda x, y: _state_hessian(lambda u: terminal(u, y), x))(states.final, targets)
    runs = problem.chain.runs

    def body(
        r: int, carry: Any, stage: AbstractStage, theta: Any, u: Any, x: Any, p: Any
    ) -> tuple[Any, Any]:
        P, p_next = carry
        share = runs[r].sets / runs[r].length
        block = _block(problem, stage, theta, u, x, p_next, P, scale, share)
        before = jax.vmap(lambda x, u, q, Q: _pulled_back(problem, stage, theta, x, u, q, Q))
        known = r == 0 and runs[0].length == 1  # inputs are given
        return (P if known else before(x, u, p_next, P), p), block

    few, end = problem.take(slice(0, count)), (P, costates.final)
    _, blocks = few.fold(body, end, weights, states.runs, costates.runs, reverse=True)
    return tuple(jax.vmap(_factor)(_joined(*pair)) for pair in zip(runs, blocks, strict=True))


def _largest_square(problem: ControlProblem, weights: Weights, states: Trajectory) -> int:
    """Numbers a sample costs: its largest P (the inputs have none), or its products of features."""
    n = problem.num_samples
    inner = [states[k] for k in range(1, len(states))]
    sizes = [sum(a.size // n for a in jax.tree.leaves(s)) for s in inner]
    for run, theta in zip(problem.chain.runs, weights, strict=True):
        if run.stage.affine and theta.W[0].size + theta.b[0].size <= LARGEST:
            sizes.append(theta.W.shape[-1] + 1)
    return max(sizes) ** 2


def _state_hessian(f: Callable[[Any], Float[Array, ""]], x: Any) -> Float[Array, "d d"]:
    flat, unravel = ravel_pytree(x)
    return jax.hessian(lambda u: f(unravel(u)))(flat)


def _quadratic(step: Callable[[Any], Any], at: Any, p_next: Any, P: Any) -> Callable:
    """`u -> p.F(u) + 1/2 |F(u) - F(at)|^2_P`: its Hessian at `at` is that of the cost-to-go."""
    start = jax.lax.stop_gradient(ravel_pytree(step(at))[0])
    p = ravel_pytree(p_next)[0]

    def f(u: Any) -> Float[Array, ""]:
        move = ravel_pytree(step(u))[0] - start
        return p @ (move + start) + 0.5 * move @ (P @ move)

    return f


def _pulled_back(problem, stage, theta, x, u, p_next, P) -> Float[Array, "d d"]:
    f = _quadratic(lambda a: advance(stage, a, theta, u), x, p_next, P)
    n = problem.num_samples
    return _state_hessian(lambda a: f(a) + problem.state_cost(a, theta, u) / n, x)


class _Dense(eqx.Module):
    matrix: Float[Array, "m m"]


class _Kronecker(eqx.Module):
    left: Float[Array, "out out"]
    right: Float[Array, "feature feature"]
    ridge: Float[Array, ""]


class _Scalar(eqx.Module):
    value: Float[Array, ""]


def _joined(run: Run, blocks: Any) -> Any:
    """The blocks of tied stages as one."""
    if run.tied and isinstance(blocks, _Kronecker):  # a sum of products, as a product
        right = jnp.mean(blocks.right, axis=0, keepdims=True)
        return _Kronecker(run.gather(blocks.left), right, run.gather(blocks.ridge))
    return run.gather(blocks)


def _block(problem, stage, theta, u, x, p_next, P, scale, share) -> Any:
    """Curvature of J in one stage's weights; `x`, `p_next`, `P` carry the samples in front.

    `share`: of the weights' cost, which tied stages pay together.
    """
    size = sum(a.size for a in jax.tree.leaves(theta))
    if size == 0:
        return _Scalar(jnp.ones((), problem.dtype))
    flat, unravel = ravel_pytree(theta)

    def cost(t: Vector) -> Float[Array, ""]:
        own = unravel(t)
        paid = share * jnp.asarray(problem.weight_cost(own), flat.dtype)
        if not problem.couples or share < 1:
            return paid
        # A neighbour each side
        beside = jax.tree.map(lambda a, b: jnp.stack([b, a, b]), own, theta)
        return paid + problem.coupling(beside).astype(flat.dtype)

    if stage.affine:
        return _affine_block(problem, stage, theta, x, p_next, P, scale, cost)

    def local(t: Vector) -> Float[Array, ""]:
        def one(x, u, q, Q):
            f = _quadratic(lambda th: advance(stage, x, th, u), theta, q, Q)
            return f(unravel(t))

        return scale * jnp.sum(jax.vmap(one)(x, u, p_next, P)) + cost(t)

    product = lambda v: jax.jvp(jax.grad(local), (flat,), (v,))[1]
    if size <= LARGEST:
        return _Dense(jax.lax.map(product, jnp.eye(size, dtype=flat.dtype), batch_size=32))
    signs = jax.random.rademacher(jax.random.key(0), (4, size), flat.dtype)
    return _Scalar(jnp.mean(jnp.abs(jax.lax.map(lambda v: v @ product(v), signs))) / size)


def _affine_block(problem, stage, theta: AffineWeights, x, p_next, P, scale, cost) -> Any:
    def one(x, q, Q):
        a = theta.W @ x + theta.b
        return _state_hessian(_quadratic(lambda u: stage.after(x, u), a, q, Q), a)

    M = jax.vmap(one)(x, p_next, P)  # (samples, out, out)
    features = jnp.concatenate([x, jnp.ones((x.shape[0], 1), x.dtype)], axis=1)
    out, wide = M.shape[1], features.shape[1]
    zero = jnp.zeros(theta.W.size + theta.b.size, x.dtype)
    flat, _ = ravel_pytree(theta)
    ridge = jnp.mean(jax.jvp(jax.grad(cost), (flat,), (jnp.ones_like(zero),))[1])
    if out * wide <= LARGEST:
        block = scale * contraction(M, features)
        return _Dense(block + ridge * jnp.eye(out * wide, dtype=x.dtype))
    left = scale * jnp.sum(M, axis=0)
    right = features.T @ features / x.shape[0]
    return _Kronecker(left, right, ridge)


# Matrices are kept as vectors, row after row: LAPACK's results stand column after column, and a loop
# that carries them in both orders copies them at every step.
class _Cholesky(eqx.Module):
    inverse: Float[Array, " mm"]


class _Eigen(eqx.Module):
    left: Float[Array, " out_out"]
    right: Float[Array, " feature_feature"]
    values: Float[Array, "out feature"]


def _factor(block: Any) -> Any:
    """A positive definite stand-in for the block, ready to be applied."""
    if isinstance(block, _Scalar):
        return block
    if isinstance(block, _Kronecker):
        lam, U = jnp.linalg.eigh(block.left)
        mu, V = jnp.linalg.eigh(block.right)
        values = jnp.abs(lam)[:, None] * jnp.abs(mu)[None, :]
        top = jnp.max(values)
        floor = jnp.where(top > 0, 1e-6 * top, 1.0)
        values = jnp.maximum(values + jnp.abs(block.ridge), floor)
        return _Eigen(U.reshape(-1), V.reshape(-1), values)
    B = 0.5 * (block.matrix + block.matrix.T)
    eye = jnp.eye(B.shape[0], dtype=B.dtype)
    size = jnp.mean(jnp.abs(jnp.diag(B)))
    size = jnp.where(size > 0, size, 1.0).astype(B.dtype)  # no curvature at all: the identity

    # Indefinite away from a minimum: shift by the least tried amount that makes it factor.
    def failed(carry: Any) -> Any:
        tries, shift, L = carry
        return (tries == 0) | (jnp.any(jnp.isnan(L)) & (shift < 1e6 * size))

    def shifted(carry: Any) -> Any:
        tries, shift, _ = carry
        shift = jnp.where(tries == 0, 0.0, jnp.maximum(10 * shift, 1e-3 * size)).astype(B.dtype)
        return tries + 1, shift, jnp.linalg.cholesky(B + shift * eye, symmetrize_input=False)

    start = (jnp.asarray(0), jnp.zeros((), B.dtype), B)
    _, _, L = jax.lax.while_loop(failed, shifted, start)
    # Applied a hundred times for one factorisation: a product is faster than two substitutions.
    return _Cholesky(jax.scipy.linalg.cho_solve((L, True), eye).reshape(-1))


def _solve(factor: Any, v: Any) -> Any:
    """`B^{-1} v` for one stage's weights `v`."""
    if isinstance(factor, _Scalar):
        return jax.tree.map(lambda a: a / jnp.where(factor.value > 0, factor.value, 1.0), v)
    if isinstance(v, AffineWeights):
        both = jnp.concatenate([v.W, v.b[:, None]], axis=1)
        if isinstance(factor, _Eigen):
            left, right = (
                m.reshape(k, k)
                for m, k in zip((factor.left, factor.right), both.shape, strict=True)
            )
            both = left @ (left.T @ both @ right / factor.values) @ right.T
        else:
            both = _inverse(factor, both.reshape(-1)).reshape(both.shape)
        return AffineWeights(both[:, :-1], both[:, -1])
    flat, unravel = ravel_pytree(v)
    return unravel(_inverse(factor, flat))


def _inverse(factor: _Cholesky, v: Vector) -> Vector:
    return factor.inverse.reshape(v.size, v.size) @ v
