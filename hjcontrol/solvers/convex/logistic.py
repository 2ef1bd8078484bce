r"""Softmax readout with ridge: multinomial logistic regression, with its explicit Fenchel dual.

    minimise over (W, b)   (1/n) sum_i [ lse(z_i) - z_{i, y_i} ] + rho/2 (|W|^2 + |b|^2),  z_i = W x_i + b
    maximise over P        (1/n) sum_i H(p_i) - 1/(2 rho) |(1/n) (P - Y)^T [X, 1]|^2,      p_i in simplex

H   Shannon entropy          Y   labels, one-hot          at the optimum p_i = softmax(z_i)
gap = mean Fenchel-Young gap of (z_i, p_i) + |(1/n)(P - Y)^T [X, 1] + rho (W, b)|^2 / (2 rho)

Both terms of the gap are nonnegative, and the second alone is left when p_i = softmax(z_i).
"""

import time
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int
from scipy.special import logsumexp, xlogy

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known_to_fail
from hjcontrol._ground.renamed import renamed
from hjcontrol._ground.third_party import needs
from hjcontrol.control import ControlProblem, Ridge, Solution, Theorem, softmax_cross_entropy
from hjcontrol.deformation import entropy, gibbs, lse
from hjcontrol.layers.program import Residuals
from hjcontrol.networks import AffineWeights, Chain, Weights, readout
from hjcontrol.solvers.convex.problem import (
    AbstractConvexProblem,
    PrimalDual,
    checked_samples,
    host,
    one_blas_thread,
    solution,
)

THEOREM = Theorem(
    "Fenchel-Rockafellar duality for a strongly convex sum",
    "The cross-entropy of affine logits is convex in (W, b) and the ridge is strongly convex: the "
    "optimum exists, is unique, and equals the value of the dual over Gibbs states.",
    "nothing; but the features x are given, and training them too is not convex.",
)


@renamed(labels="targets")
@admits(ridge=">= 0")
class SoftmaxReadout(AbstractConvexProblem):
    """Multinomial logistic regression of labels on features, ridge on all weights and biases.

    Candidate: `AffineWeights(W (classes, d), b (classes,))`. Multipliers: `P`, shape `(n, classes)`.
    """

    inputs: Float[Array, "n d"]
    targets: Int[Array, " n"]
    ridge: Float[Array, ""]
    num_classes: int = eqx.field(static=True)
    theorem = THEOREM

    def __init__(
        self,
        inputs: ArrayLike,
        targets: ArrayLike,
        ridge: ArrayLike,
        num_classes: int | None = None,
    ):
        """**Arguments:** `inputs` `(n, d)`; integer `targets` `(n,)` from 0; `ridge > 0`, without which
        separable data have no optimum.

        **Raises:** `ValueError` for anything else.
        """
        self.inputs, targets = checked_samples("SoftmaxReadout", inputs, targets, scalar=False)
        if not jnp.issubdtype(targets.dtype, jnp.integer):
            raise ValueError(f"SoftmaxReadout: `targets` must be integers; found {targets.dtype}.")
        count = int(targets.max()) + 1 if num_classes is None else num_classes
        if int(targets.min()) < 0 or int(targets.max()) >= count or count < 2:
            raise ValueError(
                f"SoftmaxReadout: `targets` in 0 .. {count - 1} and two classes or more are needed; "
                f"found {int(targets.min())} .. {int(targets.max())}."
            )
        self.targets, self.num_classes = targets, count
        self.ridge = jnp.asarray(ridge, self.inputs.dtype)
        if known_to_fail(self.ridge > 0):
            raise ValueError(
                f"SoftmaxReadout: `ridge` must be > 0; found {float(self.ridge)}. Without it the "
                "weights of separable classes grow for ever."
            )

    def residuals(self, candidate: AffineWeights, dual: Array | None = None) -> Residuals:
        return _residuals(self, candidate, dual)

    def solve(
        self,
        *,
        engine: Literal["newton", "cvxpy"] = "newton",
        tol: float = 1e-12,
        max_steps: int = 100,
    ) -> Solution:
        """Solve. `newton`: dense, with Armijo's rule; `cvxpy`: exponential cones, by Clarabel.

        `tol`: relative gap. **Raises:** `ValueError` for another engine.
        """
        return _solved(self, engine, tol, max_steps)

    def as_cvxpy(self) -> Any:
        """The problem as a `cvxpy.Problem` in variables `W`, `b`: exponential cones."""
        return _as_cvxpy(self)

    def network(self, candidate: AffineWeights) -> tuple[Chain, Weights]:
        chain = self._chain()
        return chain, chain.stack([candidate])

    def _chain(self) -> Chain:
        return Chain([readout(self.inputs.shape[1], self.num_classes)], self.inputs[0])

    def as_control_problem(self) -> ControlProblem:
        return ControlProblem(
            self._chain(),
            self.inputs,
            self.targets,
            terminal=softmax_cross_entropy,
            running=Ridge(self.ridge),
        )

    def to_weights(self, candidate: AffineWeights) -> Weights:
        return self.network(candidate)[1]

    def from_weights(self, weights: Weights) -> AffineWeights:
        return self._chain().unstack(weights)[0]


def _as_cvxpy(readout_problem: SoftmaxReadout) -> Any:
    needs("A convex problem", "cvxpy")
    import cvxpy as cp

    X, n = host(readout_problem.inputs), len(readout_problem.inputs)
    W = cp.Variable((readout_problem.num_classes, X.shape[1]), name="W")
    b = cp.Variable(readout_problem.num_classes, name="b")
    z = X @ W.T + np.ones((n, 1)) @ cp.reshape(b, (1, readout_problem.num_classes), order="C")
    hot = np.eye(readout_problem.num_classes)[np.asarray(readout_problem.targets)]
    loss = (cp.sum(cp.log_sum_exp(z, axis=1)) - cp.sum(cp.multiply(hot, z))) / n
    ridge = 0.5 * float(readout_problem.ridge) * (cp.sum_squares(W) + cp.sum_squares(b))
    return cp.Problem(cp.Minimize(loss + ridge))


def _by_cvxpy(readout_problem: SoftmaxReadout) -> tuple[np.ndarray, int]:
    program = readout_problem.as_cvxpy()
    tight = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-12)
    program.solve(solver="CLARABEL", **tight)
    found = {v.name(): v.value for v in program.variables()}
    theta = np.column_stack([found["W"], found["b"]])
    return theta, int(program.solver_stats.num_iters)


def _solved(readout_problem: SoftmaxReadout, engine: str, tol: float, max_steps: int) -> Solution:
    if engine not in ("newton", "cvxpy"):
        raise ValueError(f"SoftmaxReadout: `engine` is 'newton' or 'cvxpy'; found {engine!r}.")
    clock = time.perf_counter()
    features = np.column_stack([host(readout_problem.inputs), np.ones(len(readout_problem.inputs))])
    targets, rho = np.asarray(readout_problem.targets), float(readout_problem.ridge)
    theta = np.zeros((readout_problem.num_classes, features.shape[1]))
    if engine == "newton":
        with one_blas_thread():
            theta, steps = newton_on_host(features, targets, rho, theta, max_steps)
    else:
        theta, steps = _by_cvxpy(readout_problem)
    value, bound, P, _ = objective_and_bound(features, targets, rho, theta)
    return solution(
        PrimalDual(readout_problem, AffineWeights(theta[:, :-1], theta[:, -1]), P),
        (value, bound),
        dtype=readout_problem.inputs.dtype,
        tol=tol if engine == "newton" else 1e-9,
        seconds=time.perf_counter() - clock,
        steps=steps,
        solver=engine,
        finished=steps < max_steps,
    )


def _residuals(
    readout_problem: SoftmaxReadout, candidate: AffineWeights, dual: Array | None
) -> Residuals:
    n, d = readout_problem.inputs.shape
    if candidate.W.shape != (readout_problem.num_classes, d) or candidate.b.shape != (
        readout_problem.num_classes,
    ):
        raise ValueError(
            f"SoftmaxReadout: a candidate needs W {(readout_problem.num_classes, d)} and b "
            f"{(readout_problem.num_classes,)}; found {candidate.W.shape} and {candidate.b.shape}."
        )
    z = readout_problem.inputs @ candidate.W.T + candidate.b[None, :]
    P = jax.vmap(lambda r: gibbs(r, 1.0))(z) if dual is None else jnp.asarray(dual, z.dtype)
    if P.shape != z.shape:
        raise ValueError(f"SoftmaxReadout: multipliers {z.shape} are needed; found {P.shape}.")
    hot = jax.nn.one_hot(readout_problem.targets, readout_problem.num_classes, dtype=z.dtype)
    free = jax.vmap(lambda r: lse(r, 1.0))(z)
    H = entropy(jnp.maximum(P, 0.0))
    G = AffineWeights((P - hot).T @ readout_problem.inputs / n, jnp.mean(P - hot, axis=0))
    pull = jax.tree.map(lambda g, t: g + readout_problem.ridge * t, G, candidate)
    square = lambda tree: sum(jnp.sum(a**2) for a in tree)
    return Residuals(
        primal={},
        dual={"sum": jnp.abs(jnp.sum(P, axis=1) - 1.0), "sign": jnp.maximum(-P, 0.0)},
        complementarity={"fenchel_young": jnp.abs(free - H - jnp.sum(P * z, axis=1))},
        stationarity={"W": jnp.abs(pull.W), "b": jnp.abs(pull.b)},
        objective=jnp.mean(free - jnp.sum(hot * z, axis=1))
        + 0.5 * readout_problem.ridge * square(candidate),
        dual_objective=jnp.mean(H) - 0.5 * square(G) / readout_problem.ridge,
    )


def objective_and_bound(
    features: np.ndarray, targets: np.ndarray, rho: float, theta: np.ndarray
) -> tuple[float, float, np.ndarray, np.ndarray]:
    """Objective, bound below, Gibbs states, gradient."""
    n = len(features)
    z = features @ theta.T
    free = np.asarray(logsumexp(z, axis=1))
    P = np.exp(z - free[:, None])
    residual = P.copy()
    residual[np.arange(n), targets] -= 1.0
    G = residual.T @ features / n
    value = np.mean(free - z[np.arange(n), targets]) + 0.5 * rho * np.sum(theta**2)
    bound = -np.mean(np.sum(xlogy(P, P), axis=1)) - 0.5 * np.sum(G**2) / rho
    return float(value), float(bound), P, G + rho * theta


def newton_on_host(
    features: np.ndarray, targets: np.ndarray, rho: float, theta: np.ndarray, max_steps: int
) -> tuple[np.ndarray, int]:
    """Dense Newton with Armijo's rule, until the gradient falls no more."""
    value, _, P, gradient = objective_and_bound(features, targets, rho, theta)
    for step in range(max_steps):
        H = _hessian(features, P, rho)
        move = -scipy.linalg.solve(H, gradient.ravel(), assume_a="pos").reshape(theta.shape)
        slope, length = float(np.sum(gradient * move)), 1.0
        floor = 4 * np.finfo(float).eps * abs(value)
        while True:
            tried = theta + length * move
            new = objective_and_bound(features, targets, rho, tried)
            if new[0] <= value + 1e-4 * length * slope + floor or length < 1e-8:
                break
            length *= 0.5
        blind = -slope <= floor  # the value says no more: the gradient alone decides
        if blind and np.abs(new[3]).max() >= np.abs(gradient).max():
            return theta, step
        theta, (value, _, P, gradient) = tried, new
    return theta, max_steps


def _hessian(features: np.ndarray, P: np.ndarray, rho: float) -> np.ndarray:
    """`(1/n) sum_i (diag p_i - p_i p_i^T) kron x_i x_i^T + rho I`."""
    n, m = features.shape
    k = P.shape[1]
    H = np.empty((k, m, k, m))
    for a in range(k):
        for b in range(a, k):
            weight = P[:, a] * ((a == b) - P[:, b]) / n
            H[a, :, b, :] = (features * weight[:, None]).T @ features
            H[b, :, a, :] = H[a, :, b, :]
    H = H.reshape(k * m, k * m)
    H[np.diag_indices(k * m)] += rho
    return H
