r"""Convex regression: least squares over *all* convex functions, lifted to values and subgradients.

    minimise over (theta, xi)   sum_i (theta_i - y_i)^2
    subject to                  theta_j + xi_j . (x_i - x_j) <= theta_i        for all i, j
    maximise over lam >= 0      r . y - |r|^2/4,    r_i = sum_k lam_ki - sum_j lam_ij
    subject to                  sum_i lam_ij (x_i - x_j) = 0                   for all j

lam_ij   multiplier of the constraint that piece j stays below the value at x_i
r_i      what holds the plane of i down, less what holds the value at i up: theta_i - y_i = -r_i/2
exports  f(x) = max_j theta_j + xi_j . (x - x_j), a max-affine layer; lse of the same pieces at eps > 0
         lies above it by at most eps log N

Any convex function attains values that satisfy the constraints, so the optimum is that over all convex
functions, and the max-affine layer of N = n pieces attains it: width n is enough.

As training: z = W x + b with one row a sample, and the exact penalty mu (lse(z, eps) - z_i), which is
a cross-entropy at temperature eps whose label is the sample itself. Jointly convex in (W, b).
"""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.renamed import renamed
from hjcontrol._ground.shown import Shown
from hjcontrol.control import ControlProblem, Solution, Theorem
from hjcontrol.deformation import lse
from hjcontrol.layers.program import Residuals
from hjcontrol.networks import AffineWeights, Chain, Weights, readout, soft_maximum
from hjcontrol.solvers.convex.cutting_planes import cutting_planes
from hjcontrol.solvers.convex.problem import (
    AbstractConvexProblem,
    PrimalDual,
    checked_samples,
    host,
    solution,
)

THEOREM = Theorem(
    "Interpolation by convex functions (Boyd & Vandenberghe, section 6.5.5) with Lagrange duality",
    "Values and subgradients extend to a convex function exactly when each supporting plane stays below "
    "every value: the quadratic program is least squares over all convex functions.",
    "fewer pieces than samples; the values between the samples, where the optimum is not unique.",
)


class Pieces(NamedTuple):
    """Values `theta (n,)` at the samples, and a subgradient `xi (n, d)` at each."""

    values: Float[Array, " n"]
    slopes: Float[Array, "n d"]


class ExactPenalty(Shown):
    """`n [(z_i - y)^2 + mu (lse(z, eps) - z_i)]` of sample i, from all pieces' values `z` there."""

    penalty: Float[Array, ""]
    eps: Float[Array, ""]

    def __call__(
        self, z: Float[Array, " n"], target: tuple[Float[Array, ""], Int[Array, ""]]
    ) -> Float[Array, ""]:
        y, i = target
        own = jnp.sum(jnp.where(jnp.arange(z.shape[0]) == i, z, 0.0))
        above = lse(z, self.eps.astype(z.dtype)) - own
        return z.shape[0] * ((own - y) ** 2 + self.penalty.astype(z.dtype) * above)


@admits()
class ConvexRegression(AbstractConvexProblem):
    """Least squares over convex functions. Candidate: `Pieces`. Multipliers: `lam (n, n)`."""

    inputs: Float[Array, "n d"]
    targets: Float[Array, " n"]
    theorem = THEOREM

    def __init__(self, inputs: ArrayLike, targets: ArrayLike):
        """**Arguments:** `inputs` `(n, d)`, `targets` `(n,)`, two samples or more.

        **Raises:** `ValueError` for other shapes, or for two samples at one place, whose values no
        function tells apart.
        """
        self.inputs, self.targets = checked_samples("ConvexRegression", inputs, targets)
        x = np.asarray(self.inputs)
        if len(np.unique(x, axis=0)) < len(x) or len(x) < 2:
            raise ValueError(
                f"ConvexRegression: two samples or more at distinct places are needed; found {len(x)}, "
                f"{len(np.unique(x, axis=0))} of them distinct. Average the repeated ones."
            )

    def residuals(self, candidate: Pieces, dual: Array | None = None) -> Residuals:
        """As for any program; without multipliers the bound below is that of `lam = 0`, which is zero."""
        return _residuals(self, candidate, dual)

    @renamed(max_rounds="max_steps")
    def solve(self, *, tol: float = 1e-7, max_steps: int = 60) -> Solution:
        """Solve by cutting planes: only constraints that once were violated are ever stated.

        `tol`: relative gap. Each round's quadratic program bounds the optimum from below, and its
        planes' maximum, moved to the mean of the targets, from above.
        """
        clock = time.perf_counter()
        found = cutting_planes(host(self.inputs), host(self.targets), tol, max_steps)
        return solution(
            PrimalDual(self, Pieces(found.values, found.slopes), found.multipliers),
            (found.upper, found.lower),
            dtype=self.inputs.dtype,
            tol=tol,
            seconds=time.perf_counter() - clock,
            steps=found.rounds,
            solver="cutting planes",
            floor=1e-9 * float(np.sum((host(self.targets) - host(self.targets).mean()) ** 2)),
            finished=found.rounds < max_steps,
            constraints=found.constraints,
        )

    def network(self, candidate: Pieces) -> tuple[Chain, Weights]:
        """The max-affine layer `max_j theta_j + xi_j . (x - x_j)`."""
        return _layer(self, candidate, 0.0)

    def smoothed(self, candidate: Pieces, eps: ArrayLike) -> tuple[Chain, Weights, Array]:
        """The same pieces under `lse(., eps)`, and how far it may lie above: `0 <= f_eps - f_0 <= bound`,
        `bound = eps log N`."""
        chain, weights = _layer(self, candidate, eps)
        return chain, weights, jnp.asarray(eps) * np.log(len(self.inputs))

    def as_control_problem(
        self, *, penalty: float | None = None, eps: float = 0.0
    ) -> ControlProblem:
        """One affine stage, one row a sample, with the exact penalty for planes above values.

        Exact at `eps = 0` where `penalty` is at least the largest row sum of the multipliers; without
        it, four times the spread of the targets is used, and `certify` tells whether that was enough.
        At `eps > 0` the objective is smooth and higher by at most `n penalty eps log n`.
        """
        n, d = self.inputs.shape
        if penalty is None:
            penalty = 4.0 * float(np.ptp(np.asarray(self.targets)))
        dtype = self.inputs.dtype
        return ControlProblem(
            Chain([readout(d, n)], self.inputs[0]),
            self.inputs,
            (self.targets, jnp.arange(n)),
            terminal=ExactPenalty(jnp.asarray(penalty, dtype), jnp.asarray(eps, dtype)),
        )

    def to_weights(self, candidate: Pieces) -> Weights:
        return (jax.tree.map(lambda a: a[None], _affine(self, candidate)),)

    def from_weights(self, weights: Weights) -> Pieces:
        """Value and slope of the largest plane at each sample: feasible whatever the weights."""
        W, b = (a[0] for a in weights[0])
        planes = self.inputs @ W.T + b[None, :]
        return Pieces(jnp.max(planes, axis=1), W[jnp.argmax(planes, axis=1)])


def _residuals(regression: ConvexRegression, candidate: Pieces, dual: Array | None) -> Residuals:
    x, y = regression.inputs, regression.targets
    candidate = Pieces(*(jnp.asarray(a, x.dtype) for a in candidate))
    n = len(x)
    if candidate.values.shape != y.shape or candidate.slopes.shape != x.shape:
        raise ValueError(
            f"ConvexRegression: values {y.shape} and slopes {x.shape} are needed; found "
            f"{candidate.values.shape} and {candidate.slopes.shape}."
        )
    lam = jnp.zeros((n, n), x.dtype) if dual is None else jnp.asarray(dual, x.dtype)
    if lam.shape != (n, n):
        raise ValueError(f"ConvexRegression: multipliers {(n, n)} are needed; found {lam.shape}.")
    above = _planes(regression, candidate) - candidate.values[:, None]
    r = jnp.sum(lam, axis=0) - jnp.sum(lam, axis=1)
    balance = lam.T @ x - jnp.sum(lam, axis=0)[:, None] * x
    return Residuals(
        primal={"plane": jnp.maximum(above, 0.0)},
        dual={"sign": jnp.maximum(-lam, 0.0), "balance": jnp.abs(balance)},
        complementarity={"plane": jnp.abs(lam * above)},
        stationarity={"value": jnp.abs(2.0 * (candidate.values - y) + r)},
        objective=jnp.sum((candidate.values - y) ** 2),
        dual_objective=jnp.sum(r * y - 0.25 * r**2),
    )


def _layer(regression: ConvexRegression, candidate: Pieces, eps: Any) -> tuple[Chain, Weights]:
    n, d = regression.inputs.shape
    chain = Chain(
        [soft_maximum(d, n, jnp.asarray(eps, regression.inputs.dtype))], regression.inputs[0]
    )
    return chain, chain.stack([_affine(regression, candidate)])


def _affine(regression: ConvexRegression, candidate: Pieces) -> AffineWeights:
    slopes = jnp.asarray(candidate.slopes)
    return AffineWeights(slopes, candidate.values - jnp.sum(slopes * regression.inputs, axis=1))


def _planes(regression: ConvexRegression, candidate: Pieces) -> Float[Array, "n n"]:
    """Value at sample i of the plane of sample j."""
    offset = candidate.values - jnp.sum(candidate.slopes * regression.inputs, axis=1)
    return regression.inputs @ candidate.slopes.T + offset[None, :]
