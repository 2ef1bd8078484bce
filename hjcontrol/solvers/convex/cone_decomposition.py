r"""From gated units to ReLU units, by splitting each weight between two cones.

    1(g . x_i >= 0) w . x_i = (u . x_i)_+ - (v . x_i)_+   for all i,   where   u - v = w,   u, v in K_g
    K_g = { u : (2 D_gi - 1) x_i . u >= 0 for all i }

Every w splits, since g lies inside K_g. The split of least |u|^2 + |v|^2 is a least-distance problem
(see `least_distance`):
    minimise |z|,  z = v + w/2   subject to   C z >= max(C w, -C w)/2,    rows of C: (2 D_gi - 1) x_i

Equality holds at the training inputs. Elsewhere a gate and a ReLU open on different half-spaces.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from hjcontrol._ground.results import RESULTS
from hjcontrol.control import ControlProblem, Ridge, Solution, least_squares
from hjcontrol.networks import AffineWeights, Chain, Dense, readout
from hjcontrol.solvers.convex.least_distance import least_distance
from hjcontrol.solvers.convex.problem import plain_answer


def decompose(
    inputs: ArrayLike, targets: ArrayLike, gates: ArrayLike, W: ArrayLike, penalty: ArrayLike
) -> Solution:
    """The ReLU network of gated weights `W (gates, d)`, trained by the mean square with weight decay; see
    the top of this file. Its hidden layer has no biases, its two layers equal lengths.

    `objective` is `(1/2n) sum (f - y)^2 + lambda sum (|u| + |v|)`: the gated optimum is a lower bound of
    the best one on these activation patterns. `stats["deviation"]` is the largest difference from the
    gated network at the training inputs.

    **Raises:** `ValueError` if some gate's cone has no interior (a sample orthogonal to its gate).
    """
    clock = time.perf_counter()
    dtype = jnp.asarray(inputs).dtype
    X, W64 = np.asarray(inputs, float), np.asarray(W, float)
    open_ = np.asarray(jnp.asarray(inputs) @ jnp.asarray(gates, dtype).T >= 0)
    used = np.flatnonzero(np.any(W64 != 0, axis=1))
    units, signs = [], []
    for g in used:
        v = split(np.where(open_[:, g, None], X, -X), W64[g])
        if v is None:
            raise ValueError(
                f"decompose: the cone of gate {g} has no interior, so its weights cannot be split. "
                "A sample lies on the gate's plane; draw other gates."
            )
        for part, sign in ((W64[g] + v, 1.0), (v, -1.0)):
            if np.any(part != 0):
                units.append(part)
                signs.append(sign)
    U = np.array(units).reshape(-1, X.shape[1])
    signs = np.array(signs)
    if len(U) == 0:  # all gates are closed: one unit that is silent
        U, signs = np.zeros((1, X.shape[1])), np.zeros(1)
    size = np.linalg.norm(U, axis=1)
    root = np.sqrt(np.where(size > 0, size, 1.0))
    hidden = AffineWeights(jnp.asarray(U / root[:, None], dtype), jnp.zeros(len(U), dtype))
    outer = AffineWeights(jnp.asarray((signs * root)[None], dtype), jnp.zeros(1, dtype))
    chain = Chain(
        [Dense(X.shape[1], len(U), jax.nn.relu), readout(len(U), 1)], jnp.asarray(inputs)[0]
    )
    problem = ControlProblem(
        chain, inputs, jnp.asarray(targets)[:, None], terminal=least_squares, running=Ridge(penalty)
    )
    f = np.maximum(X @ U.T, 0.0) @ signs
    gated = np.sum(np.where(open_, X @ W64.T, 0.0), axis=1)
    loss = 0.5 * np.mean((f - np.asarray(targets, float)) ** 2)
    return plain_answer(
        problem,
        chain.stack([hidden, outer]),
        jnp.asarray(float(loss + float(penalty) * size.sum()), dtype),
        RESULTS.successful,
        seconds=time.perf_counter() - clock,
        steps=len(used),
        solver="cone decomposition",
        deviation=float(np.abs(f - gated).max()),
    )


def split(C: Float[np.ndarray, "n d"], w: Float[np.ndarray, " d"]) -> np.ndarray | None:
    """`v` of least `|w + v|^2 + |v|^2` with `C v >= 0` and `C (w + v) >= 0`; `None` if there is none."""
    need = C @ w
    if np.all(need >= 0):
        return np.zeros_like(w)
    if np.all(need <= 0):
        return -w
    z = least_distance(C, 0.5 * np.abs(need))
    return None if z is None else z - 0.5 * w
