r"""Every stage of an ensemble to second order along a trajectory, sample by sample.

    h(x, e) = l/n + c p.F + 1/2 |F - F_k|^2_D          D: Hessian of a sample's cost-to-go behind it

e    how the weights enter: `a = W x + b` where a stage is `affine`, moved by `dW x + db`; else weights
c    1: exact curvature (DDP); 0: that of the costs along linearised states (Gauss-Newton, iLQR)

    A = dF/dx    G = dF/de    D = d2h/dx2    C = d2h/de dx    curvature = sum_i d2h/de2 f f' + d2r
    dJ/dtheta, moved by a state dx with all weights fixed:  W'dx = C dx (x) f + lam (x) dx,  lam = c p.G

Only weights couple samples, so all of these are per sample, and no matrix of all samples' states is
ever formed: memory is linear in their number.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from hjcontrol._ground.shown import Shown
from hjcontrol.control import ControlProblem, Trajectory
from hjcontrol.networks import AbstractStage, AffineWeights, Weights, advance
from hjcontrol.networks.given import Given
from hjcontrol.solvers.contraction import contraction

WIDE = 32  # features from which on a product with them alone is worth a matrix product


class Run(Shown):
    """A run's stages, their number in front; or one of them, without it. `m = e * f` weights each."""

    A: Float[Array, "*stages n after before"]
    G: Float[Array, "*stages n after e"]
    C: Float[Array, "*stages n e before"]
    D: Float[Array, "*stages n before columns"]  # one column of zeros where the state is given
    features: Float[Array, "*stages n f"]
    lam: Float[Array, "*stages n e"]
    curvature: Float[Array, "*stages m m"]
    affine: bool = eqx.field(static=True)

    def along(self, dx: Float[Array, "n before"]) -> Float[Array, "n after"]:
        """The next state's move, with the weights fixed."""
        return jnp.einsum("nij,nj->ni", self.A, dx)

    def pulled(self, dx: Float[Array, "n before"]) -> Float[Array, "n m"]:
        """`W'dx`: by how much each sample's share of `dJ/dtheta` changes when its state moves."""
        bent = jnp.einsum("nej,nj->ne", self.C, dx)
        found = bent[:, :, None] * self.features[:, None, :]
        if self.affine:
            moved = jnp.concatenate([dx, jnp.zeros_like(dx[:, :1])], axis=1)  # of (x, 1)
            found = found + self.lam[:, :, None] * moved[:, None, :]
        return found.reshape(len(dx), -1)

    def met(self, T: Float[Array, "n before e"], source: "Run") -> Float[Array, "m rest"]:
        """`sum_i W'T f'`: how the weights of an earlier stage bend `dJ/dtheta` here. `T`: the state's
        sensitivity to how they enter."""
        f = source.features
        if f.shape[1] >= WIDE or not self.affine:
            found = jax.lax.map(lambda t: self.pulled(t).T @ f, jnp.moveaxis(T, 2, 0))  # (e, m, f)
            return jnp.moveaxis(found, 0, 1).reshape(found.shape[1], -1)
        # Two large matrix products in the place of `e` thin ones.
        (n, d, e), b = T.shape, self.C.shape[1]
        paired = lambda u: (u[:, :, None] * f[:, None, :]).reshape(n, -1)
        bent = jnp.einsum("nbi,nie->nbe", self.C, T).reshape(n, -1)
        found = (bent.T @ paired(self.features)).reshape(b, e, d + 1, -1).transpose(0, 2, 1, 3)
        moved = (T.reshape(n, -1).T @ paired(self.lam)).reshape(d, e, b, -1)
        found = found.at[:, :d].add(moved.transpose(2, 0, 1, 3))
        return found.reshape(b * (d + 1), -1)


def pack(stage: AbstractStage, theta: Any) -> Float[Array, " m"]:
    """One stage's weights as a vector, an affine stage's by units: `(W, b)` of the first, then on."""
    if stage.affine:
        return jnp.concatenate([theta.W, theta.b[:, None]], axis=1).reshape(-1)
    return ravel_pytree(theta)[0]


def unpack(stage: AbstractStage, like: Any, flat: Float[Array, " m"]) -> Any:
    """The inverse of `pack`."""
    if stage.affine:
        both = flat.reshape(like.b.shape[0], -1)
        return AffineWeights(both[:, :-1], both[:, -1])
    return ravel_pytree(like)[1](flat)


def flat_weights(problem: ControlProblem, weights: Weights) -> Float[Array, " M"]:
    """All stages' packed weights in order of depth; also of anything shaped like weights."""
    runs = zip(problem.chain.runs, weights, strict=True)
    packed = [eqx.filter_vmap(pack)(run.stage, theta).reshape(-1) for run, theta in runs]
    return jnp.concatenate(packed)


def linearise(
    problem: ControlProblem,
    weights: Weights,
    states: Trajectory,
    costates: Trajectory,
    exact: bool | Bool[Array, ""],
) -> tuple[Run, ...]:
    """The stages of every run, from the last to the first. `exact`: DDP, not Gauss-Newton."""
    n = problem.num_samples

    def terminal(x: Array, y: Any, unravel: Any) -> Array:
        return problem.terminal_cost(unravel(x), y) / n

    flat, unravel = _flat(states.final)
    D = jax.vmap(lambda x, y: jax.hessian(terminal)(x, y, unravel))(flat, problem.targets)
    lone = problem.chain.runs[0].length == 1  # then no state before the first stage ever moves

    def body(
        r: int, carry: Any, stage: AbstractStage, theta: Any, u: Any, x: Any, p: Any
    ) -> tuple[Any, Run]:
        D, p_next = carry
        one = _stage(problem, stage, theta, u, x, p_next, D, exact, lone and r == 0)
        return (one.D, _flat(p)[0]), one

    end = (D, _flat(costates.final)[0])
    return problem.fold(body, end, weights, states.runs, costates.runs, reverse=True)[1]


def _flat(x: Any) -> tuple[Float[Array, "n d"], Any]:
    one = jax.tree.map(lambda a: a[0], x)
    return jax.vmap(lambda a: ravel_pytree(a)[0])(x), ravel_pytree(one)[1]


def enters_by_affine_part(
    problem: ControlProblem, stage: AbstractStage, theta: Any, x: Any, u: Any = None
) -> bool:
    """Whether `theta` moves one sample's cost and next state only through `a = W x + b`."""
    if not stage.affine:
        return False
    # What the cost of states makes of the weights: nothing, if its trace never reads them.
    cost = lambda th, x, u: jnp.asarray(problem.state_cost(x, th, u))
    traced = jax.make_jaxpr(cost)(theta, x, u).jaxpr
    own = traced.invars[: len(jax.tree.leaves(theta))]
    read = [v for eqn in traced.eqns for v in eqn.invars] + list(traced.outvars)
    return not any(v is w for v in own for w in read)


def _stage(problem, stage, theta, u, x, p_next, D, exact, given: bool) -> Run:
    n = problem.num_samples
    one = jax.tree.map(lambda a: a[0], x)
    paired = isinstance(u, Given)
    read = jax.tree.map(lambda a: a[0], u) if paired else None
    affine = enters_by_affine_part(problem, stage, theta, one, read)
    flat, unravel = _flat(x)
    packed = pack(stage, theta)
    size = theta.b.shape[0] if affine else packed.size
    at = jnp.zeros(size, packed.dtype)

    def step(x: Array, e: Array, u: Any) -> Array:
        if affine:
            x = unravel(x)
            return ravel_pytree(stage.after(x, theta.W @ x + theta.b + e))[0]
        return ravel_pytree(advance(stage, unravel(x), unpack(stage, theta, packed + e), u))[0]

    def local(x: Array, e: Array, u: Any, p: Array, D: Array) -> Array:
        F = step(x, e, u)
        move = F - jax.lax.stop_gradient(F)
        th = theta if affine else unpack(stage, theta, packed + e)
        cost = problem.state_cost(unravel(x), th, u) / n + 0.5 * move @ (D @ move)
        return cost if exact is False else cost + exact * (p @ F)

    def per_sample(x: Array, u: Any, p: Array, D: Array) -> tuple[Array, ...]:
        G = jax.jacfwd(step, argnums=1)(x, at, u)
        if given:
            zeros = jnp.zeros((size, x.size), x.dtype)
            A, C = jnp.zeros((G.shape[0], x.size), x.dtype), zeros
            return A, G, C, jnp.zeros((x.size, 1), x.dtype)
        A = jax.jacfwd(step)(x, at, u)
        slopes = lambda x: jax.grad(local, argnums=(0, 1))(x, at, u, p, D)
        D, C = jax.jacfwd(slopes)(x)
        return A, G, C, D

    shared = u if stage.reads != "nothing" or paired else None
    A, G, C, D_before = jax.vmap(per_sample)(flat, shared, p_next, D)
    lam = exact * jnp.einsum("nie,ni->ne", G, p_next)
    if affine:
        features = jnp.concatenate([flat, jnp.ones((n, 1), flat.dtype)], axis=1)
        bend = jax.vmap(jax.hessian(local, argnums=1), in_axes=(0, None, 0, 0, 0))
        curvature = contraction(bend(flat, at, shared, p_next, D), features)
    else:
        features = jnp.ones((n, 1), flat.dtype)
        every = jax.vmap(local, in_axes=(0, None, 0, 0, 0))
        total = lambda e: jnp.sum(every(flat, e, shared, p_next, D))
        curvature = jax.hessian(total)(at)
    cost = lambda t: jnp.asarray(problem.weight_cost(unpack(stage, theta, t)), t.dtype)
    curvature = curvature + jax.hessian(cost)(packed)
    return Run(A, G, C, D_before, features, lam, curvature, affine)
