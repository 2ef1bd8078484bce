r"""A two-layer network behind fixed gates: group lasso, with the ReLU network that it gives.

    minimise over w_g      (1/2n) sum_i (f(x_i) - y_i)^2 + lambda sum_g |w_g|_2,
                           f(x) = sum_g 1(g . x >= 0) w_g . x
    maximise over nu       (1/n) sum_i [ nu_i y_i - nu_i^2/2 ]
    subject to             |(1/n) sum_i nu_i D_gi x_i|_2 <= lambda for every gate

g       gates, given           D_gi   1(g . x_i >= 0)          nu = y - f at the optimum
Weight decay lambda/2 (a_g^2 + |v_g|^2) on the two layers w_g = a_g v_g has the same optimum, and no
other second-order stationary point: the two-layer network trained by gradients is the twin.

Gated is not ReLU. With lambda > 0 the ReLU program adds the cones (2 D_g - 1) X w >= 0 and charges both
parts of w = u - v, so the optimum here is a lower bound of it; see `cone_decomposition`.
Recipe of the gates: Mishkin, Sahiner & Pilanci, Fast convex optimization for two-layer ReLU networks,
ICML 2022, section 3.
"""

import time

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known_to_fail
from hjcontrol.control import ControlProblem, Ridge, Solution, Theorem, least_squares
from hjcontrol.layers.program import Residuals
from hjcontrol.networks import Chain, Weights
from hjcontrol.networks.fixed_features import GatedUnits, Sum
from hjcontrol.solvers.convex.cone_decomposition import decompose
from hjcontrol.solvers.convex.problem import (
    AbstractConvexProblem,
    PrimalDual,
    checked_samples,
    host,
    one_blas_thread,
    solution,
)

THEOREM = Theorem(
    "Fenchel duality of the group lasso",
    "With gates fixed the output is linear in w and the penalty is a norm: a residual whose correlation "
    "with every gated feature group is at most lambda bounds every choice of w. Weight decay on a "
    "two-layer gated network has the same optimum.",
    "other gates; and ReLU networks, of whose objective on these activation patterns the optimum is a "
    "lower bound only.",
)
CHECK = 25  # steps between two looks at the gap


@admits(d=">= 1", count=">= 1", seed=">= 0")
def sample_gates(d: int, count: int, *, seed: int) -> Float[np.ndarray, "count d"]:
    """Normal gate vectors, drawn as pyscnn draws them: NumPy's default generator, shape `(d, count)`."""
    return np.random.default_rng(seed).standard_normal((d, count)).T


@admits(penalty=">= 0")
class GatedReLU(AbstractConvexProblem):
    """Group lasso behind gates. Candidate: `W (gates, d)`. Multipliers: `nu (n,)`."""

    inputs: Float[Array, "n d"]
    targets: Float[Array, " n"]
    gates: Float[Array, "gates d"]
    penalty: Float[Array, ""]
    theorem = THEOREM

    def __init__(self, inputs: ArrayLike, targets: ArrayLike, gates: ArrayLike, penalty: ArrayLike):
        """**Arguments:** `inputs` `(n, d)` and `targets` `(n,)`, centred by the caller where a constant
        is not wanted; `gates` `(G, d)`; `penalty` lambda > 0.

        **Raises:** `ValueError` for anything else.
        """
        self.inputs, self.targets = checked_samples("GatedReLU", inputs, targets)
        d = self.inputs.shape[1]
        self.gates = jnp.asarray(gates, self.inputs.dtype)
        self.penalty = jnp.asarray(penalty, self.inputs.dtype)
        if self.gates.ndim != 2 or self.gates.shape[1] != d or len(self.gates) == 0:
            raise ValueError(
                f"GatedReLU: `gates` of shape (G, {d}) are needed; found {self.gates.shape}."
            )
        if known_to_fail(self.penalty > 0) or not np.isfinite(np.asarray(self.gates)).all():
            raise ValueError(
                f"GatedReLU: a penalty > 0 and finite gates are needed; found penalty "
                f"{float(self.penalty)}."
            )

    @property
    def patterns(self) -> Float[Array, "n gates"]:
        """`D`: which gates are open at which samples."""
        return (self.inputs @ self.gates.T >= 0).astype(self.inputs.dtype)

    def residuals(self, candidate: Float[Array, "gates d"], dual: Array | None = None) -> Residuals:
        return _residuals(self, candidate, dual)

    def solve(self, *, tol: float = 1e-10, max_steps: int = 200_000) -> Solution:
        """Solve by accelerated proximal gradient steps with restarts. `tol`: relative gap."""
        return _solved(self, tol, max_steps)

    def network(self, candidate: Float[Array, "gates d"]) -> tuple[Chain, Weights]:
        """The gated network itself, both layers of equal length: the same function everywhere."""
        return self._chain(), self.to_weights(candidate)

    def relu_network(self, candidate: Float[Array, "gates d"]) -> Solution:
        """A plain ReLU network that agrees with the candidate *at the training inputs*. Its objective is
        its own; `stats["deviation"]` is its largest difference from the gated network there."""
        return decompose(self.inputs, self.targets, self.gates, candidate, self.penalty)

    def _chain(self) -> Chain:
        return Chain([GatedUnits(self.gates), Sum(len(self.gates))], self.inputs[0])

    def as_control_problem(self) -> ControlProblem:
        """Two stages with weight decay: not convex, and its good stationary points are the optimum."""
        return ControlProblem(
            self._chain(),
            self.inputs,
            self.targets[:, None],
            terminal=least_squares,
            running=Ridge(self.penalty),
        )

    def to_weights(self, candidate: Float[Array, "gates d"]) -> Weights:
        root = jnp.sqrt(_norms(jnp.asarray(candidate)))
        inner = candidate / jnp.where(root > 0, root, 1.0)[:, None]
        return self._chain().stack([inner, root])

    def from_weights(self, weights: Weights) -> Float[Array, "gates d"]:
        inner, outer = self._chain().unstack(weights)
        return inner * outer[:, None]


def _solved(gated: GatedReLU, tol: float, max_steps: int) -> Solution:
    clock = time.perf_counter()
    X, y, D = host(gated.inputs), host(gated.targets), np.asarray(gated.patterns, bool)
    with one_blas_thread():
        W, nu, values, steps = _group_lasso(X, y, D, float(gated.penalty), tol, max_steps)
    return solution(
        PrimalDual(gated, W, nu),
        values,
        dtype=gated.inputs.dtype,
        tol=tol,
        seconds=time.perf_counter() - clock,
        steps=steps,
        solver="accelerated proximal gradient",
        finished=False,
        open_gates=int(np.sum(np.any(W != 0, axis=1))),
    )


def _residuals(
    gated: GatedReLU, candidate: Float[Array, "gates d"], dual: Array | None
) -> Residuals:
    X, y, n = gated.inputs, gated.targets, len(gated.inputs)
    W = jnp.asarray(candidate, X.dtype)
    if W.shape != gated.gates.shape or (dual is not None and jnp.shape(dual) != y.shape):
        raise ValueError(
            f"GatedReLU: weights {gated.gates.shape} and multipliers {y.shape} are needed; found "
            f"{W.shape} and {None if dual is None else jnp.shape(dual)}."
        )
    D, sizes = gated.patterns, _norms(W)
    rest = y - jnp.sum(D * (X @ W.T), axis=1)
    pull = lambda v: (D * v[:, None]).T @ X / n
    if dual is None:
        largest = jnp.max(_norms(pull(rest)))
        nu = rest * jnp.minimum(1.0, gated.penalty / jnp.where(largest > 0, largest, 1.0))
    else:
        nu = jnp.asarray(dual, X.dtype)
    G = pull(nu)
    return Residuals(
        primal={},
        dual={"gate": jnp.maximum(_norms(G) - gated.penalty, 0.0)},
        complementarity={"gate": jnp.abs(gated.penalty * sizes - jnp.sum(G * W, axis=1))},
        stationarity={"sample": jnp.abs(nu - rest)},
        objective=0.5 * jnp.mean(rest**2) + gated.penalty * jnp.sum(sizes),
        dual_objective=jnp.mean(nu * y - 0.5 * nu**2),
    )


def _norms(W: Array) -> Array:
    square = jnp.sum(W**2, axis=1)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def _group_lasso(X, y, D, penalty, tol, max_steps):
    """Weights, multipliers, (objective, bound), steps. The gram matrix stands for all samples."""
    n, d = X.shape
    A = (D[:, :, None] * X[:, None, :]).reshape(n, -1)
    gram, pull = A.T @ A / n, A.T @ y / n
    rate = np.linalg.eigvalsh(gram)[-1]
    shape = (D.shape[1], d)
    W = ahead = np.zeros(A.shape[1])
    momentum, best = 1.0, (W, 0.0 * y, (np.inf, -np.inf))
    step = 0
    for step in range(max_steps + 1):
        if step % CHECK == 0:
            value, bound, nu = _values(A, y, W, penalty, shape)
            if bound > best[2][1] or value < best[2][0]:
                best = (
                    W if value <= best[2][0] else best[0],
                    nu if bound >= best[2][1] else best[1],
                    (min(value, best[2][0]), max(bound, best[2][1])),
                )
            if best[2][0] - best[2][1] <= tol * best[2][0]:
                break
        move = (ahead - (gram @ ahead - pull) / rate).reshape(shape)
        size = np.linalg.norm(move, axis=1, keepdims=True)
        shrink = np.maximum(0.0, 1.0 - penalty / (rate * np.where(size > 0, size, 1.0)))
        new = (shrink * move).ravel()
        if (ahead - new) @ (new - W) > 0:  # the momentum points uphill
            momentum = 1.0
        after = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * momentum**2))
        ahead, W, momentum = new + (momentum - 1.0) / after * (new - W), new, after
    return best[0].reshape(shape), best[1], best[2], step


def _values(A, y, W, penalty, shape):
    n, rest = len(y), y - A @ W
    value = 0.5 * np.mean(rest**2) + penalty * np.linalg.norm(W.reshape(shape), axis=1).sum()
    largest = np.linalg.norm((A.T @ rest / n).reshape(shape), axis=1).max()
    nu = rest * min(1.0, penalty / largest) if largest > 0 else rest
    return float(value), float(np.mean(nu * y - 0.5 * nu**2)), nu
