r"""The dictionary between a layer's weights and initial data, and what it leaves open.

    y_j = 2t A W_j,    g_j = -b_j - t W_j.A W_j - c        H(p) = p.Ap; A = 1 is the house's equation
    f(x) + u(x, t) = x.A^{-1}x/(4t),    f(x) = eps log sum_j exp((W_j.x + b_j)/eps)

c   the normaliser of the u that is meant: 0 (raw), eps log sum m (mean), (eps/2) log det 4 pi eps t A

A layer determines neither the time nor the Hamiltonian: every t > 0 and every A give initial data that
reproduce it, so both are arguments here and never results. Only an evolution in time singles them out.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known_to_fail
from hjcontrol.deformation import LSE, lse
from hjcontrol.hamilton_jacobi.hamiltonian import AbstractHamiltonian
from hjcontrol.hamilton_jacobi.initial_data import InitialData
from hjcontrol.hamilton_jacobi.normalisation import Normalisation, metric, normaliser
from hjcontrol.hamilton_jacobi.pairs import Quadratic

Scalar = Real[ArrayLike, ""] | float | int


@admits(t="> 0", eps=">= 0")
def data_of_layer(
    W: Float[Array, "N d"],
    b: Float[Array, " N"],
    t: Scalar,
    *,
    eps: Scalar = 0.0,
    normalisation: Normalisation = "raw",
    H: AbstractHamiltonian = Quadratic(),  # noqa: B008
) -> InitialData:
    """Initial data at time 0 whose solution at the *chosen* time `t` of the *chosen* `H` is the layer.

    `f + u = x.A^{-1}x/(4t)` holds for the `u` of that `normalisation` at that `eps`; `raw` needs no
    `eps`. Masses are ones. A score masked by `b = -inf` becomes a value `+inf`.

    **Raises:** `ValueError` for `t <= 0`, `eps < 0`, disagreeing shapes, weights not finite, an `H`
    that is not quadratic.
    """
    if W.ndim != 2 or b.shape != W.shape[:1]:
        raise ValueError(
            f"data_of_layer: W (N, d) and b (N,) are needed; found {W.shape}, {b.shape}."
        )
    if known_to_fail(jnp.isfinite(W)) or known_to_fail(b < jnp.inf):
        raise ValueError("data_of_layer: W must be finite and b finite or -inf; found NaN or inf.")
    t = jnp.asarray(t, W.dtype)
    AW = W @ metric(H, W.shape[1]).astype(W.dtype)
    data = InitialData(2 * t * AW, -b - t * jnp.sum(W * AW, axis=1))
    shift = normaliser(normalisation, data, t, eps, H)
    return InitialData(data.atoms, data.values - shift)


@admits(t="> 0", eps=">= 0")
def layer_of_data(
    data: InitialData,
    t: Scalar,
    *,
    eps: Scalar = 0.0,
    normalisation: Normalisation = "raw",
    H: AbstractHamiltonian = Quadratic(),  # noqa: B008
) -> LSE:
    """The layer that the data's solution is at time `t`; the inverse of `data_of_layer`.

    Masses go into the biases, `b_j += eps log m_j`, so they need the `eps` that will be used. The
    layer's temperature is that `eps`, 0 unless given; `W, b = layer` takes its weights alone.

    **Raises:** `ValueError` as `data_of_layer`.
    """
    y = data.atoms
    t = jnp.asarray(t, y.dtype)
    W = jnp.linalg.solve(metric(H, y.shape[1]).astype(y.dtype), y.T).T / (2 * t)
    shift = normaliser(normalisation, data, t, eps, H)
    return LSE(W, -data.energies(eps) - jnp.sum(y * W, axis=1) / 2 - shift, eps)


@admits(s="finite", eps=">= 0")
def plane_waves(
    W: Float[Array, "N d"],
    b: Float[Array, " N"],
    x: Float[Array, " d"],
    s: Scalar,
    eps: Scalar,
    *,
    H: AbstractHamiltonian = Quadratic(),  # noqa: B008
) -> Float[Array, ""]:
    r"""The layer as initial data itself: $F(x,s)=\mathrm{lse}_j(W_j\cdot x+b_j+s\,H(-W_j),\varepsilon)$.

    `U = -F` solves `U_s + H(grad U) = eps tr(A hess U)` from `U(., 0) = -f`, with no gauge term: for
    quadratic `H` at every `eps`; at `eps = 0` for *any* `H`, which is why a layer at one time says
    nothing of `H`. Time is a shift of the biases.

    **Raises:** `ValueError` for `s < 0`, `eps < 0`, shapes, or `eps > 0` with an `H` not quadratic.
    """
    if known_to_fail(jnp.asarray(s) >= 0):
        raise ValueError(f"plane_waves: s >= 0 is needed; found {s}.")
    if W.shape[1:] != x.shape or b.shape != W.shape[:1]:
        raise ValueError(
            f"plane_waves: W (N, d), b (N,) and x (d,) are needed; found {W.shape}, {b.shape}, {x.shape}."
        )
    if known_to_fail(jnp.asarray(eps) == 0):
        metric(H, W.shape[1])  # refuses a Hamiltonian that is not quadratic
    return lse(W @ x + b + jnp.asarray(s, x.dtype) * jax.vmap(H)(-W), eps)
