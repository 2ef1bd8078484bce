r"""Where the weights may lie: $\theta_k \in \Theta$.

    Free    Theta = R^m                      Box   Theta = [lower, upper]^m

Stationarity on a convex set is the fixed point of the projected gradient step:
`theta = project(theta - g)`; its violation `|theta - project(theta - g)|` is `|g|` when free.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from hjcontrol._ground.concrete import known_to_fail


class AbstractControlSet(eqx.Module):
    """A closed convex set for every weight."""

    @abc.abstractmethod
    def project(self, theta: PyTree[Array]) -> PyTree[Array]:
        """Nearest weights in the set."""

    @abc.abstractmethod
    def bounds(self) -> tuple[Float[Array, ""] | float, Float[Array, ""] | float]:
        """Lower and upper bound of each weight."""

    def stationarity(self, theta: PyTree[Array], gradient: PyTree[Array]) -> Float[Array, ""]:
        """Largest coordinate of `theta - project(theta - gradient)`; zero at a stationary point."""
        moved = self.project(jax.tree.map(lambda t, g: t - g, theta, gradient))
        gaps = jax.tree.map(lambda t, m: jnp.max(jnp.abs(t - m), initial=0.0), theta, moved)
        return jax.tree.reduce(jnp.maximum, gaps, jnp.asarray(0.0))


class Free(AbstractControlSet):
    """No constraint."""

    def project(self, theta):
        return theta

    def bounds(self):
        return -jnp.inf, jnp.inf

    def stationarity(self, theta, gradient):
        del theta  # theta - (theta - g) would round g to the last digit of theta
        gaps = jax.tree.map(lambda g: jnp.max(jnp.abs(g), initial=0.0), gradient)
        return jax.tree.reduce(jnp.maximum, gaps, jnp.asarray(0.0))


class Box(AbstractControlSet):
    """Every weight between `lower` and `upper`."""

    lower: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    upper: Float[Array, ""] = eqx.field(converter=jnp.asarray)

    def __check_init__(self):
        if known_to_fail(self.lower <= self.upper):
            raise ValueError(
                f"Box: lower <= upper is needed; found {float(self.lower)} and {float(self.upper)}."
            )

    def project(self, theta):
        return jax.tree.map(
            lambda t: jnp.clip(t, self.lower.astype(t.dtype), self.upper.astype(t.dtype)), theta
        )

    def bounds(self):
        return self.lower, self.upper
