r"""Residual stages with noise: viscosity by Monte Carlo.

    x_{k+1} = x_k + h f(x_k, theta_k) + sqrt(2 nu h) xi_k,     xi_k ~ N(0, 1) given, not drawn here

Euler-Maruyama for dX = f dt + sqrt(2 nu) dB. With V = -eps log E exp(-Phi(X_T)/eps), the soft minimum
over noise, and the time run from the start of the path,

    V_t + f.grad V - (nu/eps) |grad V|^2 + nu Lap V = 0,     V(x, T) = Phi(x)

(eps = infinity, the plain mean: no quadratic term). The noise is data: a forcing of the problem, made by
`brownian` from an explicit key, new ones for each pass as you like. Then one sample's path is a smooth
function of its weights and is trained pathwise; every route of `hj.verify` holds noise and all.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key, PyTree, Real

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known_to_fail
from hjcontrol.deformation import softmin
from hjcontrol.networks.stage import AbstractStage, FunctionStage, Symmetry, as_stage


@admits(h="finite", nu=">= 0", particles=">= 1")
class StochasticResidual(AbstractStage):
    """One Euler-Maruyama step of length `h` along `drift`, of viscosity `nu`.

    With `particles`, the state is `(particles, d)`: so many paths of one sample, which `soft_mean` ends.
    """

    drift: AbstractStage
    h: Float[Array, ""]
    nu: Float[Array, ""]
    particles: bool = eqx.field(static=True)

    def __init__(self, drift: Any, h: Any, nu: Any, particles: bool = False):
        """**Raises:** `ValueError` for a step that is not positive or a negative viscosity."""
        self.drift, self.particles = as_stage(drift), particles
        self.h, self.nu = jnp.asarray(h, float), jnp.asarray(nu, float)
        for name, value, right in (("h", self.h, self.h > 0), ("nu", self.nu, self.nu >= 0)):
            if known_to_fail(right & jnp.isfinite(value)):
                wanted = "positive" if name == "h" else ">= 0"
                raise ValueError(
                    f"StochasticResidual: `{name}` must be {wanted} and finite; found {value}."
                )

    @property
    def reads(self):
        return "forcing"

    def check(self, given: PyTree[Array]) -> None:
        for leaf in jax.tree.leaves(given):
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise ValueError(
                    "StochasticResidual: noise of floating dtype is read, such as "
                    f"`brownian(key, ...)` gives; found {leaf.dtype}."
                )

    def step(self, x, theta, *given):
        (xi,) = given
        move = (lambda a: self.drift.step(a, theta)) if not self.particles else None
        velocity = move(x) if move else jax.vmap(lambda a: self.drift.step(a, theta))(x)
        spread = jnp.sqrt(2 * self.nu * self.h)
        return jax.tree.map(
            lambda a, v, z: a + self.h.astype(a.dtype) * v + spread.astype(a.dtype) * z,
            x,
            velocity,
            xi,
        )

    def init(self, key):
        return self.drift.init(key)

    def symmetry(self) -> Symmetry | None:
        return None  # a relabelling would have to relabel the noise too


@admits(samples=">= 1", steps=">= 0", shape=">= 0")
def brownian(
    key: Key[Array, ""], samples: int, steps: int, shape: tuple[int, ...], dtype: Any = None
) -> Float[Array, "samples steps *shape"]:
    """Independent standard normals, a forcing for `steps` stages: `shape` is one sample's state's."""
    dtype = jnp.zeros(()).dtype if dtype is None else dtype
    return jax.random.normal(key, (samples, steps, *shape), dtype)


@admits(particles=">= 1")
def scatter(particles: int) -> FunctionStage:
    """The stage that starts so many paths of one sample at its state: `(d,)` to `(particles, d)`."""
    return FunctionStage(_Scatter(int(particles)))


class _Scatter(eqx.Module):
    particles: int = eqx.field(static=True)

    def __call__(self, x: PyTree[Array]) -> PyTree[Array]:
        return jax.tree.map(lambda a: jnp.broadcast_to(a, (self.particles, *a.shape)), x)


@admits(eps="> 0 or inf")
def soft_mean(
    phi: Callable[..., Float[Array, ""]], eps: Real[ArrayLike, ""] | float
) -> Callable[..., Any]:
    """The terminal cost `-eps log mean exp(-phi/eps)` over one sample's paths; `eps = inf`: the mean.

    Consistent, not unbiased: the logarithm of a mean is off by `O(1/particles)`.

    **Raises:** `ValueError` for an `eps` that is not positive.
    """

    def terminal(x: PyTree[Array], *y: Any) -> Float[Array, ""]:
        costs = jax.vmap(lambda a: phi(a, *y))(x)
        at = jnp.asarray(eps, costs.dtype)
        finite = jnp.where(jnp.isfinite(at), at, 1.0)
        soft = softmin(costs, finite) + finite * jnp.log(jnp.asarray(costs.size, costs.dtype))
        return jnp.where(jnp.isfinite(at), soft, jnp.mean(costs))

    return terminal
