r"""Shannon entropy, and the entropy of a Gibbs state.

    H(p) = -sum_j p_j log p_j,   0 log 0 = 0          0 <= H <= log N

    gibbs_entropy(z, eps) = H(gibbs(z, eps)) = (lse(z, eps) - E_pi[z]) / eps = d lse / d eps

Monotone in the temperature: dH/d eps = Var_pi(z) / eps^3 >= 0. At eps = 0 it is log(#exact ties).
"""

import jax.numpy as jnp
from jax.scipy.special import entr
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from hjcontrol._ground.arguments import admits, in_range
from hjcontrol.deformation.eps_family import heat


@admits()
def entropy(p: Real[ArrayLike, "..."], axis: int = -1) -> Float[Array, "..."]:
    """Shannon entropy of nonnegative weights along `axis`, in nats; `-inf` for a negative weight."""
    p = jnp.asarray(p)
    in_range("entropy", "axis", axis, f">= {-p.ndim}, < {p.ndim}")
    return jnp.sum(entr(p), axis=axis)


@admits(eps=">= 0")
def gibbs_entropy(
    z: Real[ArrayLike, "..."], eps: Real[ArrayLike, ""] | float | int, axis: int = -1
) -> Float[Array, "..."]:
    """Entropy of the Gibbs state of logits `z` at temperature `eps >= 0`, in nats.

    A row in which everything is masked has entropy 0. Errors as for
    [`gibbs`][hjcontrol.deformation.gibbs].
    """
    return heat(z, eps, axis=axis)
