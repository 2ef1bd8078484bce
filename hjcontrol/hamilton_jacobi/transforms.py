r"""Convex transforms of functions: on points in closed form, of a convex function with a certificate.

    f*(q) = sup_x q.x - f(x)                (f [] g)(x) = inf_y f(y) + g(x - y)
    env_s f(x) = min_y f(y) + |x - y|^2/(2s)    prox_s f(x) = its argmin = x - s grad env_s f(x)

Law    f** <= f, equal for convex closed f; f(x) + f*(q) >= q.x; (f [] g)* = f* + g*
Note   env_s is the half-quadratic flow at time s, and the house's quadratic flow at time s/2

A function of points is +inf off them: then every transform is a maximum over them, at `eps > 0` a soft
one. A convex function is minimised over a ball that the caller knows to hold the answer, and comes back
as a bracket that is right whatever the search did (see `UserConvex`).
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.shown import Shown
from hjcontrol.deformation.streaming import streaming_lse
from hjcontrol.hamilton_jacobi.dictionary import Scalar
from hjcontrol.hamilton_jacobi.user_hamiltonian import Conjugate, UserConvex

Function = Callable[[Array], Array]


class Minimum(Shown):
    """`min fn` over the ball lies in `[lower, upper]`; `upper = fn(minimiser)`."""

    lower: Float[Array, ""]
    upper: Float[Array, ""]
    minimiser: Float[Array, " d"]

    @property
    def gap(self) -> Float[Array, ""]:
        """`upper - lower >= 0`, the certificate."""
        return self.upper - self.lower


@admits(eps=">= 0")
def legendre(
    points: Float[Array, "N d"],
    values: Float[Array, " N"],
    slopes: Float[Array, "m d"],
    eps: Scalar = 0.0,
) -> Float[Array, " m"]:
    r"""$f^*(q)=\max_j\, q\cdot x_j - f(x_j)$ at every slope, streamed; the soft maximum at `eps > 0`.

    **Raises:** `ValueError` for disagreeing shapes, no points, `eps < 0`.
    """
    return streaming_lse(slopes, points, -values, eps)


@admits()
def biconjugate(
    points: Float[Array, "N d"],
    values: Float[Array, " N"],
    slopes: Float[Array, "m d"],
    x: Float[Array, "k d"],
) -> Float[Array, " k"]:
    """`f**` at every `x`, from slopes that are tried: the largest convex minorant with those slopes.

    **Raises:** `ValueError` as `legendre`.
    """
    return legendre(slopes, legendre(points, values, slopes), x)


@admits(radius="> 0")
def conjugate(f: Function, q: Float[Array, " d"], radius: Scalar) -> Conjugate:
    """`f*(q)` of a convex `f`, its maximiser sought in the ball about the origin.

    **Raises:** `ValueError` for `radius <= 0`.
    """
    return UserConvex(f, radius).certificate(q)


def minimum(fn: Function, centre: Float[Array, " d"], radius: Scalar) -> Minimum:
    """The least value of a convex `fn` over the ball, as a bracket. A kink leaves the bracket wide.

    **Raises:** `ValueError` for `radius <= 0`.
    """
    found = UserConvex(lambda y: fn(centre + y), radius).certificate(jnp.zeros_like(centre))
    return Minimum(-found.value - found.gap, -found.value, centre + found.maximiser)


@admits(radius="> 0")
def infimal_convolution(f: Function, g: Function, x: Float[Array, " d"], radius: Scalar) -> Minimum:
    """`min_y f(y) + g(x - y)` of two convex functions, `y` sought within `radius` of `x`.

    **Raises:** `ValueError` for `radius <= 0`.
    """
    return minimum(lambda y: f(y) + g(x - y), x, radius)


@admits(s="> 0", radius="> 0")
def moreau(f: Function, x: Float[Array, " d"], s: Scalar, radius: Scalar) -> Minimum:
    """Moreau envelope of a convex `f` with parameter `s`, and its prox as `minimiser`.

    The objective is `1/s`-strongly convex: the prox is within `sqrt(2 s gap)` of the minimiser.

    **Raises:** `ValueError` for `s <= 0` or `radius <= 0`.
    """
    s = jnp.asarray(s, x.dtype)
    return minimum(lambda y: f(y) + jnp.sum((x - y) ** 2) / (2 * s), x, radius)


@admits(s="> 0", radius="> 0")
def prox(f: Function, x: Float[Array, " d"], s: Scalar, radius: Scalar) -> Float[Array, " d"]:
    """`argmin_y f(y) + |x - y|^2/(2s)` of a convex `f`; `moreau` tells how sure it is.

    **Raises:** `ValueError` for `s <= 0` or `radius <= 0`.
    """
    return moreau(f, x, s, radius).minimiser


@admits(s="> 0", reach="> 0")
def prox_separable(
    phi: Function, x: Float[Array, " d"], s: Scalar, reach: Scalar
) -> Float[Array, " d"]:
    r"""Prox of $f(y)=\sum_i\varphi(y_i)$, `phi` convex of one real: bisection, kinks and all.

    The sign of $\varphi'(y)+(y-x_i)/s$ is followed down to neighbouring floats, within `reach` of `x`.

    **Raises:** `ValueError` for `s <= 0` or `reach <= 0`.
    """
    s, reach = jnp.asarray(s, x.dtype), jnp.asarray(reach, x.dtype)
    slope = eqx.filter_vmap(eqx.filter_grad(phi))

    def halve(ends: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        low, high = ends
        middle = low + (high - low) / 2
        right = slope(middle) + (middle - x) / s < 0
        return (jnp.where(right, middle, low), jnp.where(right, high, middle)), None

    steps = 2 * jnp.finfo(x.dtype).nmant + 8
    (low, high), _ = jax.lax.scan(halve, (x - reach, x + reach), None, length=steps)
    return low + (high - low) / 2
