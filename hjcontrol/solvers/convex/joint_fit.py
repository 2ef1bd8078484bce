r"""A log-sum-exp layer of few atoms with its temperature: slopes, biases and eps fitted together.

    minimise over (W, b, log eps)   (1/2n) sum_i (lse(W x_i + b, eps) - y_i)^2

d lse/d log eps = eps H(pi), the entropy of the Gibbs weights. Not convex: started from many partitions of
the samples, each with the affine least squares of its parts (eps = 0: partition and refit until the parts
no longer change, Magnani and Boyd 2009), then Levenberg-Marquardt on all parameters. The best end is a
critical point, not a global one; `native.ends` has every start's.

At `eps = 0` the layer is max-affine, and its polish runs at temperatures that fall to 0.
"""

import time
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.results import RESULTS
from hjcontrol.control import Solution
from hjcontrol.networks import AffineWeights, soft_maximum
from hjcontrol.solvers.convex.polishing import mean_square_problem, polish
from hjcontrol.solvers.convex.problem import checked_samples, host, one_blas_thread, plain_answer

WARM = (0.3, 0.03)  # starting temperatures, in units of the targets' standard deviation
SWEEPS = 30  # of partition and refit


class JointFit(NamedTuple):
    """What a joint fit found beside its weights: `eps`, and the rms error at the end of every start."""

    layer: AffineWeights
    eps: Float[Array, ""]
    rms: float
    ends: np.ndarray
    note: str = "critical point, not global"


@admits(atoms=">= 1", starts=">= 1", max_steps=">= 1")
def fit_jointly(
    inputs: ArrayLike,
    targets: ArrayLike,
    eps: ArrayLike | str = "fit",
    *,
    atoms: int,
    starts: int = 20,
    max_steps: int = 400,
) -> Solution:
    """Fit slopes, biases and, with `eps="fit"`, the temperature, from many starts; `eps = 0`: max-affine.

    **Returns:** a `Solution` of the best start, at its temperature; `native` is a
    [`JointFit`][hjcontrol.solvers.convex.JointFit]. Partitions are drawn from a fixed seed: the same
    call gives the same answer.

    **Raises:** `ValueError` for samples of wrong shape, fewer samples than atoms, or another `eps`.

    **Example:**

        >>> import numpy as np, hjcontrol as hj
        >>> u = np.geomspace(1.0, 3.0, 41)
        >>> y = np.log((u**2 + 3) / (u + 1) ** 2)
        >>> fit = hj.convex.fit_jointly(np.log(u)[:, None], y, atoms=2, starts=3)
        >>> bool(fit.native.rms < 3e-5)
        True
    """
    clock = time.perf_counter()
    inputs, targets = checked_samples("fit_jointly", inputs, targets)
    fitted = isinstance(eps, str)
    if fitted and eps != "fit":
        raise ValueError(f"fit_jointly: `eps` must be a number >= 0 or 'fit'; found {eps!r}.")
    held = None if fitted else float(np.asarray(eps))
    if held is not None and not (held >= 0 and np.isfinite(held)):
        raise ValueError(f"fit_jointly: `eps` must be finite and >= 0; found {held}.")
    x, y = host(inputs), host(targets)
    if len(y) < atoms:
        raise ValueError(
            f"fit_jointly: at least as many samples as atoms are needed; found {len(y)} samples, "
            f"{atoms} atoms."
        )
    X, spread = np.column_stack([x, np.ones(len(y))]), float(np.std(y)) or 1.0
    ends, best = [], (np.inf, np.zeros((atoms, X.shape[1])), 0.0)
    with one_blas_thread():
        for start in range(starts):
            T = _parts(X, y, atoms, np.random.default_rng(start))
            found = _descend(X, y, T, held, spread, max_steps)
            ends.append(found[0])
            best = min(best, found, key=lambda end: end[0])
    rms, T, temperature = best
    dtype = inputs.dtype
    layer = AffineWeights(jnp.asarray(T[:, :-1], dtype), jnp.asarray(T[:, -1], dtype))
    native = JointFit(layer, jnp.asarray(temperature, dtype), rms, np.array(ends))
    solution = _solution(inputs, targets, layer, temperature, rms, time.perf_counter() - clock)
    return eqx.tree_at(lambda s: s.native, solution, native, is_leaf=lambda x: x is None)


def _solution(inputs, targets, layer, eps, rms, seconds) -> Solution:
    if eps > 0:
        return polish(inputs, targets, layer, eps, max_steps=5)
    stage = soft_maximum(inputs.shape[1], layer.b.shape[0], jnp.asarray(0.0, inputs.dtype))
    one = AffineWeights(layer.W[None], layer.b[None])
    return plain_answer(
        mean_square_problem(inputs, targets, stage),
        (one,),
        jnp.asarray(0.5 * rms**2, inputs.dtype),
        RESULTS.stagnated,
        seconds=seconds,
        steps=1,
        solver="partition and refit, then falling temperatures",
    )


def _parts(X: np.ndarray, y: np.ndarray, atoms: int, rng: np.random.Generator) -> np.ndarray:
    """Affine least squares on random parts, then on the parts on which each is the largest."""
    centres = X[rng.choice(len(y), atoms, replace=False)]
    part = np.argmin(((X[:, None] - centres[None]) ** 2).sum(axis=2), axis=1)
    T = np.repeat(_affine(X, y, np.ones(len(y), bool), X[0])[None], atoms, axis=0)
    best = (np.inf, T)
    for _ in range(SWEEPS):
        T = np.stack([_affine(X, y, part == k, T[k]) for k in range(atoms)])
        error = float(np.mean((np.max(X @ T.T, axis=1) - y) ** 2))
        best = (error, T) if error < best[0] else best
        new = np.argmax(X @ T.T, axis=1)
        if (new == part).all():
            break
        part = new
    return best[1]


def _affine(
    X: np.ndarray, y: np.ndarray, here: np.ndarray, before: np.ndarray | None
) -> np.ndarray:
    """Least squares on a part, towards the whole where the part does not determine it."""
    if here.sum() < X.shape[1]:
        if before is not None:
            return before
        here = np.ones(len(y), bool)
    return np.linalg.lstsq(X[here], y[here], rcond=1e-10)[0]


def _descend(X, y, T, held, spread, max_steps) -> tuple[float, np.ndarray, float]:
    """From one start: rms error, slopes and biases, temperature."""
    if held is not None and held > 0:
        return _least_squares(X, y, T, held, False, max_steps)
    if held is None:
        tries = [_least_squares(X, y, T, w * spread, True, max_steps) for w in WARM]
        return min(tries, key=lambda end: end[0])
    ends = [(_rms(X, y, T, 0.0), T, 0.0)]
    for eps in spread * 0.3 * 0.3 ** np.arange(12.0):
        _, T, _ = _least_squares(X, y, T, eps, False, 60)
        ends.append((_rms(X, y, T, 0.0), T, 0.0))
        part = np.argmax(X @ T.T, axis=1)
        fresh = np.stack([_affine(X, y, part == k, T[k]) for k in range(len(T))])
        ends.append((_rms(X, y, fresh, 0.0), fresh, 0.0))
    return min(ends, key=lambda end: end[0])


def _rms(X: np.ndarray, y: np.ndarray, T: np.ndarray, eps: float) -> float:
    return float(np.sqrt(np.mean((_layer(X, T, eps)[0] - y) ** 2)))


def _layer(X: np.ndarray, T: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, Gibbs weights and entropies."""
    z = X @ T.T
    top = z.max(axis=1, keepdims=True)
    if eps == 0:
        return top[:, 0], (z == top).astype(float), np.zeros(len(z))
    u = (z - top) / eps
    e = np.exp(u)
    total = e.sum(axis=1, keepdims=True)
    pi, log = e / total, np.log(total)
    entropy = (log - (pi * u).sum(axis=1, keepdims=True))[:, 0]
    return (top + eps * log)[:, 0], pi, entropy


def _least_squares(X, y, T, eps, free, max_steps) -> tuple[float, np.ndarray, float]:
    """Levenberg-Marquardt on slopes, biases and, if `free`, log eps; columns in units of their norms."""
    damping, log = 1e-3, float(np.log(eps))
    value, pi, entropy = _layer(X, T, eps)
    r = value - y
    cost = float(r @ r)
    for _ in range(max_steps):
        J = (pi[:, :, None] * X[:, None, :]).reshape(len(y), -1)
        J = np.column_stack([J, np.exp(log) * entropy]) if free else J
        size = np.linalg.norm(J, axis=0)
        size = np.where(size > 0, size, 1.0)
        U, s, V = np.linalg.svd(J / size, full_matrices=False)
        pull = U.T @ r
        for _ in range(12):
            step = (V.T @ (s * pull / (s**2 + damping))) / size
            new = T - step[: T.size].reshape(T.shape)
            hotter = log - np.clip(step[-1], -1.0, 1.0) if free else log
            value, *rest = _layer(X, new, float(np.exp(hotter)))
            tried = float(np.sum((value - y) ** 2))
            if tried < cost:
                break
            damping *= 4.0
        else:
            break
        gained = cost - tried
        T, log, r, cost, (pi, entropy) = new, hotter, value - y, tried, rest
        damping = max(damping / 8.0, 1e-18)
        if gained < 1e-13 * cost:
            break
    return float(np.sqrt(cost / len(y))), T, float(np.exp(log))
