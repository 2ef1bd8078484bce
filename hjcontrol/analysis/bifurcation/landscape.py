r"""The entropy landscape of a soft-maximum layer, with its derivatives in closed form.

    H(x) = -sum_j pi_j log pi_j,   pi = gibbs(z, eps),   z = W x + b,   s = z/eps

    grad H = -Cov_pi(W, z)/eps^2           hess H = -[kappa_3(W, W, z)/eps + Cov_pi(W)]/eps^2
    dH/d eps = Var_pi(z)/eps^3 >= 0        kappa_3(W, W, z) = E[(W - EW)(W - EW)^T (z - Ez)]

Moments are taken about the largest logit's atom, so that in a cold cell, where H is exponentially
small, its derivatives keep their relative accuracy. At eps = 0 the landscape is flat off the ties
and has no derivatives there: `eps > 0`. As eps -> infinity one critical point is left, a maximum,
at `hot_centre`.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known_to_fail
from hjcontrol._ground.shown import Shown
from hjcontrol.networks.trained import AnyHead, affine_head_of


class Landscape(Shown):
    """Entropy at one point, in nats, with its derivatives in `x` and in `eps`."""

    entropy: Float[Array, ""]
    gradient: Float[Array, " d"]
    hessian: Float[Array, "d d"]
    eps_slope: Float[Array, ""]


@admits()
def entropy_landscape(layer: AnyHead, x: Real[ArrayLike, " d"]) -> Landscape:
    """The landscape at one point; batch with `jax.vmap`.

    **Raises:** `ValueError` for a layer at `eps = 0`, or an `x` of another length.
    """
    layer = affine_head_of("entropy_landscape", layer)
    if known_to_fail(layer.eps > 0):
        raise ValueError(
            "entropy_landscape: eps > 0 is needed; found 0. There the entropy is log(#ties), flat "
            "wherever it has a derivative."
        )
    s = layer.scores(x) / layer.eps
    top = jnp.argmax(s)
    c, w = s - s[top], layer.W - layer.W[top][None, :]
    p = jnp.exp(c)
    p = p / p.sum()
    mc, mw = p @ c, p @ w  # both small where one atom rules
    wc = (p * c) @ w
    ww = jnp.einsum("j,ja,jb->ab", p, w, w)
    cov = ww - jnp.outer(mw, mw)
    third = jnp.einsum("j,ja,jb->ab", p * c, w, w) - mc * ww
    third = third - jnp.outer(wc, mw) - jnp.outer(mw, wc) + 2 * mc * jnp.outer(mw, mw)
    eps = layer.eps.astype(s.dtype)
    return Landscape(
        entropy=jnp.log1p(jnp.sum(jnp.where(jnp.arange(s.size) == top, 0.0, jnp.exp(c)))) - mc,
        gradient=-(wc - mw * mc) / eps,
        hessian=-(third + cov) / eps**2,
        eps_slope=(p @ c**2 - mc**2) / eps,
    )


@admits()
def hot_centre(layer: AnyHead) -> Float[Array, " d"]:
    """Where the one critical point goes as `eps -> infinity`: `-Cov(W)^{-1} Cov(W, b)`, uniform weights.

    **Raises:** `ValueError` if the atoms do not span the space: then a line of points stays critical.
    """
    layer = affine_head_of("hot_centre", layer)
    w = layer.W - layer.W.mean(axis=0, keepdims=True)
    if known_to_fail(jnp.linalg.matrix_rank(w) == w.shape[1]):
        raise ValueError(
            f"hot_centre: {w.shape[0]} atoms do not span dimension {w.shape[1]}: the critical points "
            "form a flat. Project the inputs onto the atoms' span."
        )
    return -jnp.linalg.solve(w.T @ w, w.T @ layer.b)
