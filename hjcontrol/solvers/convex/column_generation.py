r"""Slopes for a Hopf-Cole fit, chosen from a whole ball by column generation.

    minimise over positive measures mu on |w| <= R   (1/n) sum_i phi(u_i),   u_i = int A_w(x_i) mu(dw)

The measure problem is convex, and an optimal measure with finitely many atoms exists. Each round fits
the masses on the slopes at hand, then prices: local maxima of q(w) = E_{pi_w}[s] above one enter as
new slopes (see `pricing`). A bound on q over the ball turns the scores into a bound on *every* layer
with slopes in the ball, whatever its width: `solution.native.ball()` proves it.

Starting slopes fill the ball evenly (Roberts' sequence): no random numbers.
"""

import time

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from scipy.special import ndtri

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.renamed import renamed
from hjcontrol.control import Solution
from hjcontrol.solvers.convex import nonnegative
from hjcontrol.solvers.convex.hopf_cole import HopfCole
from hjcontrol.solvers.convex.joint_fit import fit_jointly
from hjcontrol.solvers.convex.pricing import Ball, Pricing, ascend, bound
from hjcontrol.solvers.convex.problem import (
    AbstractPrimalDual,
    checked_samples,
    host,
    one_blas_thread,
)

ROOM = 1.5  # default radius over the data's own steepest slope: a soft maximum undershoots
PAIRS = 200  # samples among which the steepest slope is looked for
NEAR = 0.1  # share of pairs, the nearest, that are left out: their slopes are noise
ROWS = 1000  # samples, about, on which slopes are looked for


class PricedAtoms(AbstractPrimalDual):
    """Masses and scores of a log-sum-exp layer whose slopes were chosen from a ball.

    `problem` is the `HopfCole` problem on the chosen slopes; `rounds` has the objective and the largest
    price seen, one row per round. The layer may have fewer atoms than the columns that it was chosen
    from: `measure_objective` is the value before pruning, `scores` its multipliers.
    """

    problem: HopfCole
    candidate: Float[Array, " N"]
    dual: Float[Array, " n"]
    scores: np.ndarray
    measure_objective: float
    radius: float
    rounds: np.ndarray

    def ball(self, *, tol: float = 1e-3, max_cubes: int = 20_000) -> Ball:
        """Bound the price over all slopes of the ball; see `pricing.bound`."""
        problem = self.problem
        pricing = Pricing(
            host(problem.inputs),
            host(problem.targets),
            float(problem.eps),
            problem.loss,
            self.scores,
        )
        with one_blas_thread():
            return bound(
                pricing, self.radius, starts=host(problem.slopes), tol=tol, max_cubes=max_cubes
            )

    def below(self, ball: Ball) -> float:
        """The bound that `ball` proves: no layer of any width, slopes in it, has a lower objective."""
        return nonnegative.dual_value(self.problem.loss, self.scores, ball.bound)


@renamed(max_rounds="max_steps")
@admits(eps=">= 0", max_atoms=">= 1", radius=">= 0", max_steps=">= 0", tol=">= 0")
def fit_lse(
    inputs: ArrayLike,
    targets: ArrayLike,
    eps: ArrayLike | str,
    *,
    max_atoms: int,
    radius: float | None = None,
    loss: nonnegative.Loss = "squared",
    candidates: int | None = None,
    max_steps: int = 6,
    tol: float = 1e-3,
    starts: int = 20,
) -> Solution:
    """Fit a log-sum-exp layer by convex means alone.

    **Arguments:**

    - `inputs` `(n, d)`, `targets` `(n,)`, `eps > 0`, `loss`: as for `HopfCole`.
    - `max_atoms`: the layer is pruned to at most so many.
    - `radius`: of the ball of slopes; without it, 1.5 times the steepest difference quotient of some
      pairs of samples that are not near each other.
    - `candidates`: starting slopes; without it, 3 times `max_atoms`, within 24 to 900.
    - `eps="fit"`: slopes, biases and temperature are fitted together, from `starts` starts, by
      [`fit_jointly`][hjcontrol.solvers.convex.fit_jointly]: a critical point, not global.
    - `max_steps`: rounds of pricing, 0 for none. `tol`: stop once no price above `1 + tol` is found.

    **Returns:** a `Solution` over the biases of the chosen slopes; its `native` is a `PricedAtoms`.

    **Raises:** `ValueError` for anything else.
    """
    clock = time.perf_counter()
    if isinstance(eps, str):
        if loss != "squared":
            raise ValueError(f"fit_lse: `eps='fit'` needs the loss 'squared'; found {loss!r}.")
        return fit_jointly(inputs, targets, eps, atoms=max_atoms, starts=starts)
    inputs, targets = checked_samples("fit_lse", inputs, targets)
    if max_atoms < 1:
        raise ValueError(f"fit_lse: `max_atoms` must be >= 1; found {max_atoms}.")
    x, y = host(inputs), host(targets)
    reach = ROOM * steepest(x, y) if radius is None else float(radius)
    if not (np.isfinite(reach) and reach > 0):
        raise ValueError(f"fit_lse: `radius` must be positive and finite; found {reach}.")
    count = min(max(3 * max_atoms, 24), 900) if candidates is None else candidates
    problem = HopfCole(inputs, targets, np.zeros((1, x.shape[1])), eps, loss)  # refuses bad input
    fit = _Columns(x, y, float(problem.eps), loss)
    with one_blas_thread():
        fit.start(ball_points(count, x.shape[1], reach))
        scores, value, history = _generate(fit, reach, max_steps, tol)
        _prune(fit, max_atoms)
        problem = eqx.tree_at(lambda p: p.slopes, problem, jnp.asarray(fit.slopes, inputs.dtype))
        found = problem.found(fit.L, fit.log_c, len(history), clock)
    pair = found.native
    priced = PricedAtoms(
        problem, pair.candidate, pair.dual, scores, value, reach, np.array(history)
    )
    return eqx.tree_at(lambda s: s.native, found, priced)


def steepest(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, " n"]) -> float:
    """Largest difference quotient among pairs of some samples, the nearest tenth of pairs left out:
    what they measure is noise."""
    x, y = x[:PAIRS], y[:PAIRS]
    rise = np.abs(y[:, None] - y[None, :])
    run = np.linalg.norm(x[:, None] - x[None, :], axis=2)
    if not run.any():
        return 1.0
    far = run >= np.quantile(run[run > 0], NEAR)
    return float(np.max(rise[far] / run[far], initial=0.0)) or 1.0


def ball_points(count: int, d: int, radius: float) -> Float[np.ndarray, "count d"]:
    """Points that fill a ball evenly: Roberts' additive sequence; equally spaced in one dimension."""
    if d == 1:
        return np.linspace(-radius, radius, count)[:, None]
    golden = 2.0
    for _ in range(60):
        golden = (1.0 + golden) ** (1.0 / (d + 2))
    u = (0.5 + np.outer(np.arange(1, count + 1), golden ** -np.arange(1.0, d + 2))) % 1.0
    g = ndtri(u[:, :d])
    return radius * g / np.linalg.norm(g, axis=1, keepdims=True) * u[:, d:] ** (1.0 / d)


class _Columns:
    """Slopes at hand, their logits on the samples, and their masses."""

    def __init__(self, x: np.ndarray, y: np.ndarray, eps: float, loss: nonnegative.Loss):
        self.x, self.y, self.eps, self.loss = x, y, eps, loss
        self.slopes, self.L = np.empty((0, x.shape[1])), np.empty((len(x), 0))
        self.log_c = np.empty(0)
        self.some = slice(None, None, max(1, len(x) // ROWS))

    def logits(self, slopes: np.ndarray, rows: slice = slice(None)) -> np.ndarray:
        return (self.x[rows] @ slopes.T - self.y[rows, None]) / self.eps

    def start(self, slopes: np.ndarray) -> None:
        """Of many slopes, those with mass in a fit of some of the samples."""
        log_c, _ = nonnegative.fit(self.loss, self.logits(slopes, self.some))
        self.slopes = slopes[np.isfinite(log_c)]
        self.L = self.logits(self.slopes)
        self.fit()

    def add(self, slopes: np.ndarray) -> None:
        self.slopes = np.concatenate([self.slopes, slopes])
        self.L = np.column_stack([self.L, self.logits(slopes)])
        self.fit()

    def keep(self, which: np.ndarray) -> None:
        self.slopes, self.L, self.log_c = self.slopes[which], self.L[:, which], self.log_c[which]

    def fit(self) -> None:
        """Best masses; slopes without any are dropped."""
        self.log_c, _ = nonnegative.fit(self.loss, self.L)
        self.keep(np.isfinite(self.log_c))

    def state(self) -> tuple[float, np.ndarray]:
        """Objective and scores."""
        return nonnegative.values(self.loss, nonnegative.log_response(self.L, self.log_c))

    def price(self, scores: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
        """Local maxima of the price, found on some of the samples, priced on all."""
        few = Pricing(self.x[self.some], self.y[self.some], self.eps, self.loss, scores[self.some])
        slopes, _ = ascend(few, self.slopes, radius)
        return slopes, nonnegative.prices(self.loss, self.logits(slopes), scores)


def _generate(
    fit: _Columns, radius: float, max_steps: int, tol: float
) -> tuple[np.ndarray, float, list[list[float]]]:
    """Rounds of fitting and pricing: scores and objective of the last, and the history."""
    history: list[list[float]] = []
    while True:
        value, scores = fit.state()
        slopes, price = fit.price(scores, radius) if max_steps else (fit.slopes, np.ones(1))
        history.append([value, float(price.max())])
        if price.max() <= 1.0 + tol or len(history) > max_steps:
            return scores, value, history
        fit.add(slopes[price > 1.0 + 0.1 * tol])


def _prune(fit: _Columns, max_atoms: int) -> None:
    """Drop the slopes that carry least of the response, and fit again, until few enough are left."""
    while len(fit.slopes) > max_atoms:
        L = fit.L + fit.log_c
        share = np.exp(L - L.max(axis=1, keepdims=True))
        share = (share / share.sum(axis=1, keepdims=True)).sum(axis=0)
        fit.keep(np.sort(np.argsort(-share)[: max(max_atoms, int(0.7 * len(share)))]))
        fit.fit()
