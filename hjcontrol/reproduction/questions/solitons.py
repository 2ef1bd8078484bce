r"""Is a layer a soliton? The KP identity of its partition function.

    tau(x, y, s) = sum_j exp(theta_j),   theta_j = k_j x + l_j y + m_j s + b_j/eps,   f = eps log tau
    Hirota   (D_x^4 - 4 D_x D_s + 3 D_y^2) tau.tau
             = sum_ij e^{theta_i + theta_j} [(k_i-k_j)^4 - 4 (k_i-k_j)(m_i-m_j) + 3 (l_i-l_j)^2] = 0
    where l = k^2 and m = k^3: every bracket vanishes.            KP field: u = 2 d_xx log tau

One input: k = W/eps, and the flows l, m are *attached* by this file, so the identity holds for every
layer whatever its weights are, trained or not. Along y it is the viscous
Hamilton-Jacobi equation's own plane-wave flow, y = eps * time; f_xx = eps u/2.
Two or three inputs: the columns of W/eps are k, l (and m), and the identity holds on the moment curve
(k, k^2, k^3) only. More inputs, Wronskian determinants of rank above one: not a layer of this kind.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known_to_fail
from hjcontrol._ground.record import Record, Told, figure, one_of_many
from hjcontrol._ground.shown import Shown
from hjcontrol.deformation import gibbs
from hjcontrol.layers import LSE


class Soliton(Told, Shown):
    """The Hirota residual at one point, over `tau^2`, and how far the atoms lie off the moment curve."""

    residual: Float[Array, ""]  # of Hirota's form, over tau^2; zero for a tau function
    size: Float[Array, ""]  # the same sum with absolute values: what the residual is small against
    field: Float[Array, ""]  # u = 2 d_xx log tau, in 1/length^2
    off_curve: Float[Array, ""]  # max |l - k^2|/|k|^2 and |m - k^3|/|k|^3; 0 where attached
    inputs: int = eqx.field(static=True)

    @property
    def relative(self) -> Float[Array, "*batch"]:
        """Residual over its size: roundoff for a tau function."""
        return jnp.abs(self.residual) / jnp.where(self.size > 0, self.size, 1.0)

    def as_record(self) -> Record:
        """What this result says of itself."""
        if self.residual.ndim:
            return one_of_many(self, self.residual.shape)
        flows = {1: "y and s attached", 2: "s attached"}.get(self.inputs, "none attached")
        return Record(
            "KP identity",
            f"{self.inputs} input(s), flows: {flows}",
            facts={
                "Hirota residual": f"{figure(self.relative, 2)} relative",
                "off moment curve": f"{figure(self.off_curve, 2)} relative",
                "field u": f"{figure(self.field, 6)} (1/length^2)",
            },
        )


@admits()
def flows(layer: LSE) -> Float[Array, "atoms 3"]:
    """`(k, l, m)` of every atom: the columns of `W/eps`, with what is missing attached as powers of k.

    **Raises:** `ValueError` for `eps = 0` or more than three inputs.
    """
    d = layer.W.shape[1]
    if d > 3:
        raise ValueError(
            f"solitons: the identity is for one input (two and three on the moment curve); found {d}. "
            "Restrict the layer to a line: LSE(W @ v[:, None], W @ x0 + b, eps)."
        )
    if known_to_fail(layer.eps > 0):
        raise ValueError(
            "solitons: eps > 0 is needed; found eps = 0, where tau has no logarithm but a tropical limit."
        )
    k = layer.W / layer.eps.astype(layer.W.dtype)
    attached = [k[:, :1] ** p for p in range(d + 1, 4)]
    return jnp.concatenate([k, *attached], axis=1)


@admits()
def kp(
    layer: LSE,
    x: Real[ArrayLike, " d"],
    y: Real[ArrayLike, ""] | float = 0.0,
    s: Real[ArrayLike, ""] | float = 0.0,
) -> Soliton:
    """The Hirota residual at `x`, and at times `y`, `s` along the attached flows (`vmap` over points).

    With two inputs `y` must be 0, it is the second input; with three so must `s`.

    **Raises:** `ValueError` as [`flows`][hjcontrol.reproduction.questions.solitons.flows],
    or a time that is an input.
    """
    d = layer.W.shape[1]
    for name, value, last in (("y", y, 1), ("s", s, 2)):
        if d > last and known_to_fail(jnp.asarray(value) == 0):
            raise ValueError(
                f"kp: with {d} inputs `{name}` is one of them; found {name} = {value}."
            )
    klm = flows(layer)
    k, l, m = klm.T  # noqa: E741
    times = jnp.stack([jnp.asarray(v, k.dtype) for v in (y, s)])
    z = layer.scores(x) / layer.eps + klm[:, 1] * times[0] + klm[:, 2] * times[1]
    pi = gibbs(z, 1.0)
    dk, dl, dm = (a[:, None] - a[None, :] for a in (k, l, m))
    parts = jnp.stack([dk**4, -4.0 * dk * dm, 3.0 * dl**2])
    both = pi[:, None] * pi[None, :]
    powers = jnp.abs(k)[:, None] ** jnp.arange(2, 4)[None, :]
    off = jnp.abs(klm[:, 1:] - k[:, None] ** jnp.arange(2, 4)[None, :])
    return Soliton(
        residual=jnp.sum(both * jnp.sum(parts, axis=0)),
        size=jnp.sum(both * jnp.sum(jnp.abs(parts), axis=0)),
        field=2.0 * jnp.sum(pi * (k - pi @ k) ** 2),
        off_curve=jax.lax.stop_gradient(
            jnp.max(off / jnp.maximum(powers, jnp.finfo(k.dtype).tiny))
        ),
        inputs=d,
    )
