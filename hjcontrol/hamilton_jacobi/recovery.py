r"""From the solution back to its initial data, and how far that can be trusted.

from weights            a read-off, given t and H: `data_of_layer`
from values, eps = 0    g_cc(y) = max_i u(x_i) - |x_i - y|^2/(4t)  <=  g(y)
from values, eps > 0    exp(-u_i/eps) = sum_j mu_j K(x_i, y_j), mu = exp(-g/eps) >= 0: a regularised fit

At eps = 0 only the c-transform envelope is identifiable; from finitely many points a lower bound on it.
At eps > 0 the data are identifiable in principle, but it is the heat equation backwards: the columns
become parallel exponentially fast as atoms come closer than sqrt(eps t), and the condition number
reported says how many digits of u one digit of mu costs.

The fit is scaled by the eps = 0 answer: with K_ij = exp((u_i - c_ij - g_cc(y_j))/eps) <= 1,

    minimise |K mu - 1|^2 + ridge |mu|^2 over mu >= 0,      g_j = g_cc(y_j) - eps log mu_j

so rows are relative errors of exp(-u/eps), nothing overflows, and eps -> 0 leaves g_cc.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known
from hjcontrol._ground.shown import Shown
from hjcontrol.deformation.streaming import streaming_lse
from hjcontrol.hamilton_jacobi.dictionary import Scalar
from hjcontrol.hamilton_jacobi.initial_data import InitialData
from hjcontrol.hamilton_jacobi.normalisation import Normalisation, normaliser
from hjcontrol.hamilton_jacobi.pairs import Quadratic


class Recovered(Shown):
    """Initial data fitted to values, and what the fit is worth.

    `misfit` is the largest `|u - u_recovered|` over the points; `condition` that of the scaled kernel
    matrix, `rank` its numerical rank: below the number of candidate atoms the data are not determined
    without the ridge. Atoms that got no mass have value `+inf`.
    """

    data: InitialData
    misfit: Float[Array, ""]
    condition: Float[Array, ""]
    rank: Int[Array, ""]


@admits(t="> 0")
def c_transform(
    X: Float[Array, "n d"], u: Float[Array, " n"], t: Scalar, Y: Float[Array, "m d"]
) -> Float[Array, " m"]:
    r"""$g_{cc}(y)=\max_i u_0(x_i)-|x_i-y|^2/4t$ at every row of `Y`, streamed, for $H=|p|^2$.

    A lower bound on `g`, attained at atoms in whose power cell some `x_i` lies.

    **Raises:** `ValueError` for `t <= 0` or disagreeing shapes.
    """
    t = jnp.asarray(t, X.dtype)
    if u.shape != X.shape[:1] or X.shape[1] != Y.shape[1]:
        raise ValueError(
            f"c_transform: X (n, d), u (n,), Y (m, d) are needed; found {X.shape}, {u.shape}, {Y.shape}."
        )
    middle = jnp.mean(X, axis=0)[None, :]
    X, Y = X - middle, Y - middle
    scores = streaming_lse(Y, X / (2 * t), u - jnp.sum(X**2, axis=1) / (4 * t), 0.0)
    return scores - jnp.sum(Y**2, axis=1) / (4 * t)


@admits(X="finite", u="finite", Y="finite", t="> 0", eps=">= 0", ridge=">= 0")
def recover(
    X: Float[Array, "n d"],
    u: Float[Array, " n"],
    t: Scalar,
    eps: Scalar,
    Y: Float[Array, "m d"],
    *,
    ridge: float = 1e-12,
    normalisation: Normalisation = "heat",
) -> Recovered:
    """Values at candidate atoms `Y` that reproduce `u` at `X`, for `H = |p|^2` at `eps > 0`.

    Solved on the host by SciPy's nonnegative least squares; not traceable. `u` has `normalisation`
    `heat` or `raw`.

    **Raises:** `ValueError` for `t <= 0`, `eps <= 0`, `ridge < 0`, disagreeing shapes, values not
    finite, traced arguments.
    """
    from scipy.optimize import nnls

    if known(eps) is None or known(u) is None or known(X) is None:
        raise ValueError("recover: solved on the host: call outside `jit`.")
    if not float(eps) > 0 or ridge < 0 or normalisation == "mean":
        raise ValueError(
            "recover: eps > 0 (at 0 use `c_transform`), ridge >= 0 and 'heat' or 'raw' are needed; "
            f"found {eps}, {ridge}, {normalisation!r}."
        )
    if not bool(jnp.all(jnp.isfinite(u))):
        raise ValueError("recover: every value of u must be finite; found NaN or inf.")
    t, eps = jnp.asarray(t, X.dtype), jnp.asarray(eps, X.dtype)
    raw = u - normaliser(
        normalisation, InitialData(Y, jnp.zeros_like(Y[:, 0])), t, eps, Quadratic()
    )
    lower = c_transform(X, raw, t, Y)
    cost = jax.vmap(lambda x: jnp.sum((x[None, :] - Y) ** 2, axis=1))(X) / (4 * t)
    K = np.asarray(jnp.exp((raw[:, None] - cost - lower[None, :]) / eps), float)
    m = K.shape[1]
    singular = np.linalg.svd(K, compute_uv=False)
    rank = int(np.sum(singular > singular[0] * max(K.shape) * np.finfo(float).eps))
    condition = singular[0] / singular[-1] if len(singular) == m and singular[-1] > 0 else np.inf
    mu, _ = nnls(
        np.vstack([K, np.sqrt(ridge) * np.eye(m)]), np.concatenate([np.ones(len(K)), np.zeros(m)])
    )
    values = np.where(
        mu > 0, np.asarray(lower) - float(eps) * np.log(np.where(mu > 0, mu, 1)), np.inf
    )
    total = K @ mu
    misfit = float(eps) * np.max(np.abs(np.log(np.maximum(total, np.finfo(float).tiny))))
    data = InitialData(Y, jnp.asarray(values, X.dtype))
    return Recovered(data, *(jnp.asarray(a) for a in (misfit, condition, rank)))
