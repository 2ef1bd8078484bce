r"""Hopf-Cole training: a log-sum-exp layer with given slopes is a nonnegative linear problem.

    f(x) = eps log sum_j exp((w_j . x + b_j)/eps),     u(x) = exp((f(x) - y)/eps) = sum_j c_j A_j(x)
    minimise over b   (1/n) sum_i phi(u_i),          c_j = exp(b_j/eps) >= 0,  A_j = exp((w_j.x - y)/eps)

phi   squared relative error (u - 1)^2/2, or Kullback-Leibler u - 1 - log u        eps   temperature > 0
s     scores, the multipliers: feasible when E_{pi_j}[s] <= 1 for every slope, where pi_j is the Gibbs
      state over the *samples* at the logits (w_j . x_i - y_i)/eps

Linear in the masses c, not in the biases b; the slopes are data here. Training them as well is not
convex; choosing them from a ball is (see `column_generation`).
"""

import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known_to_fail
from hjcontrol._ground.shown import Shown
from hjcontrol.control import ControlProblem, Solution, Theorem
from hjcontrol.deformation import lse
from hjcontrol.layers.program import Residuals
from hjcontrol.networks import AffineWeights, Chain, Weights, soft_maximum
from hjcontrol.networks.fixed_features import FixedSlopes
from hjcontrol.solvers.convex import nonnegative
from hjcontrol.solvers.convex.problem import (
    AbstractConvexProblem,
    PrimalDual,
    checked_samples,
    host,
    one_blas_thread,
    solution,
)

THEOREM = Theorem(
    "Hopf-Cole linearisation with Fenchel duality",
    "exp(f/eps) is linear in exp(b/eps): with slopes fixed, both losses are convex in the masses, "
    "and scores whose Gibbs average is at most one at every slope bound every choice of biases.",
    "slopes outside the given set; the plain mean square of f - y; a polish of slopes and biases.",
)


class RelativeLoss(Shown):
    """`phi(exp((f - y)/eps))` of one sample, from a state of shape (1,)."""

    eps: Float[Array, ""]
    loss: nonnegative.Loss = eqx.field(static=True)

    def __call__(self, state: Float[Array, " 1"], y: Float[Array, ""]) -> Float[Array, ""]:
        r = (state[0] - y) / self.eps.astype(state.dtype)
        return 0.5 * jnp.expm1(r) ** 2 if self.loss == "squared" else jnp.expm1(r) - r


@admits(eps=">= 0")
class HopfCole(AbstractConvexProblem):
    """Biases of a log-sum-exp layer with given slopes.

    Candidate: `b (N,)`, `-inf` for a slope without mass. Multipliers: scores `(n,)`; their logarithms
    for `loss="kullback"`.
    """

    inputs: Float[Array, "n d"]
    targets: Float[Array, " n"]
    slopes: Float[Array, "N d"]
    eps: Float[Array, ""]
    loss: nonnegative.Loss = eqx.field(static=True)
    theorem = THEOREM

    def __init__(
        self,
        inputs: ArrayLike,
        targets: ArrayLike,
        slopes: ArrayLike,
        eps: ArrayLike,
        loss: nonnegative.Loss = "squared",
    ):
        """**Arguments:** `inputs` `(n, d)`, `targets` `(n,)`, `slopes` `(N, d)`, `eps > 0` in the
        targets' units, `loss` `"squared"` or `"kullback"`.

        **Raises:** `ValueError` for anything else.
        """
        self.inputs, self.targets = checked_samples("HopfCole", inputs, targets)
        dtype, d = self.inputs.dtype, self.inputs.shape[1]
        self.slopes, self.eps = jnp.asarray(slopes, dtype), jnp.asarray(eps, dtype)
        _check_slopes(self.slopes, self.eps, d)
        if loss not in nonnegative.LOSSES:
            raise ValueError(f"HopfCole: `loss` is one of {nonnegative.LOSSES}; found {loss!r}.")
        self.loss = loss

    @property
    def logits(self) -> Float[Array, "n N"]:
        """`(w_j . x_i - y_i)/eps`."""
        return (self.inputs @ self.slopes.T - self.targets[:, None]) / self.eps

    def residuals(self, candidate: Float[Array, " N"], dual: Array | None = None) -> Residuals:
        return _residuals(self, candidate, dual)

    def solve(self, *, tol: float = 1e-9, max_steps: int = 200) -> Solution:
        """Solve for the masses. `tol`: relative gap; `max_steps`: Newton steps of `kullback`."""
        clock = time.perf_counter()
        L = (host(self.inputs) @ host(self.slopes).T - host(self.targets)[:, None]) / float(
            self.eps
        )
        with one_blas_thread():
            log_c, steps = nonnegative.fit(self.loss, L, max_steps)
        return self.found(L, log_c, steps, clock, tol)

    def found(
        self, L: np.ndarray, log_c: np.ndarray, steps: int, clock: float, tol: float = 1e-9
    ) -> Solution:
        """The solution of masses `exp(log_c)` at host logits `L`; begun when the clock read `clock`."""
        return _found(self, L, log_c, steps, clock, tol)

    def network(self, candidate: Float[Array, " N"]) -> tuple[Chain, Weights]:
        """A `soft_maximum` layer of the slopes that have mass."""
        theta = self.layer(candidate)
        chain = Chain([soft_maximum(self.slopes.shape[1], len(theta.b), self.eps)], self.inputs[0])
        return chain, (jax.tree.map(lambda a: a[None], theta),)

    def layer(self, candidate: Float[Array, " N"]) -> AffineWeights:
        """Slopes and biases of the atoms that have mass."""
        live, dtype = np.isfinite(np.asarray(candidate)), self.inputs.dtype
        W, b = np.asarray(self.slopes)[live], np.asarray(candidate)[live]
        return AffineWeights(jnp.asarray(W, dtype), jnp.asarray(b, dtype))

    def as_control_problem(self) -> ControlProblem:
        """One stage with fixed slopes; its weights are the biases, in which it is not convex, but where
        every stationary point with all masses positive is the optimum."""
        return ControlProblem(
            [FixedSlopes(self.slopes, self.eps)],
            self.inputs,
            self.targets,
            terminal=RelativeLoss(self.eps, self.loss),
        )

    def to_weights(self, candidate: Float[Array, " N"]) -> Weights:
        return (jnp.asarray(candidate)[None],)

    def from_weights(self, weights: Weights) -> Any:
        return weights[0][0]


def _found(
    fit: HopfCole, L: np.ndarray, log_c: np.ndarray, steps: int, clock: float, tol: float = 1e-9
) -> Solution:
    value, scores = nonnegative.values(fit.loss, nonnegative.log_response(L, log_c))
    price = float(nonnegative.prices(fit.loss, L, scores).max())
    bound = nonnegative.dual_value(fit.loss, scores, price)
    scores = scores - (price - 1.0) if fit.loss == "squared" else scores - np.log(price)
    return solution(
        PrimalDual(fit, float(fit.eps) * log_c, scores),
        (value, bound),
        dtype=fit.inputs.dtype,
        tol=tol,
        seconds=time.perf_counter() - clock,
        steps=steps,
        solver=f"Hopf-Cole, {fit.loss}",
        floor=1e-13,  # u is of order one
        atoms=int(np.sum(np.isfinite(log_c))),
    )


def _check_slopes(slopes: Array, eps: Array, d: int) -> None:
    """**Raises:** `ValueError` for slopes or a temperature of the wrong shape or size."""
    if slopes.ndim != 2 or slopes.shape[1] != d or len(slopes) == 0:
        raise ValueError(f"HopfCole: `slopes` of shape (N, {d}) are needed; found {slopes.shape}.")
    if not np.isfinite(np.asarray(slopes)).all():
        raise ValueError("HopfCole: `slopes` must be finite; found NaN or infinity.")
    if eps.ndim != 0 or known_to_fail(eps > 0):
        raise ValueError(
            f"HopfCole: a scalar `eps` > 0 is needed; found {np.asarray(eps)}. At eps = 0 "
            "the fit is a convex regression."
        )


def _residuals(fit: HopfCole, candidate: Float[Array, " N"], dual: Array | None) -> Residuals:
    L, n = fit.logits, len(fit.inputs)
    candidate = jnp.asarray(candidate, L.dtype)
    if candidate.shape != L.shape[1:] or (dual is not None and jnp.shape(dual) != (n,)):
        raise ValueError(
            f"HopfCole: biases {L.shape[1:]} and scores {(n,)} are needed; found "
            f"{candidate.shape} and {None if dual is None else jnp.shape(dual)}."
        )
    log_mass = candidate / fit.eps
    log_u = jax.vmap(lambda row: lse(row, 1.0))(L + log_mass[None, :])
    u, squared = jnp.exp(log_u), fit.loss == "squared"
    implied = 2.0 - u if squared else -log_u
    scores = implied if dual is None else jnp.asarray(dual, L.dtype)
    log_pi = L - jax.vmap(lambda col: lse(col, 1.0))(L.T)[None, :]
    averages = (
        scores @ jnp.exp(log_pi) if squared else jnp.sum(jnp.exp(log_pi + scores[:, None]), axis=0)
    )
    if dual is None:  # the implied scores, made feasible
        price = jnp.max(averages)
        scores = scores - (price - 1.0) if squared else scores - jnp.log(price)
        averages = averages - (price - 1.0) if squared else averages / price
    v = 1.0 - scores
    flow = jnp.exp(L + log_mass[None, :])  # mass of a slope at a sample, in units of the target
    return Residuals(
        primal={},
        dual={"price": jnp.maximum(averages - 1.0, 0.0)},
        complementarity={"mass": jnp.abs(jnp.mean(flow, axis=0) * (1.0 - averages))},
        stationarity={"score": jnp.abs(scores - implied)},
        objective=jnp.mean(0.5 * jnp.expm1(log_u) ** 2 if squared else jnp.expm1(log_u) - log_u),
        dual_objective=-jnp.mean(0.5 * v**2 + v) if squared else jnp.mean(scores),
    )
