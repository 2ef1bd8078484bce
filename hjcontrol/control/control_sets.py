r"""Where the weights may lie: $\theta_k \in \Theta$.

    Free            R^m                                Box, Nonnegative   lower <= theta <= upper
    L2Ball, L1Ball  |v|_2 <= r,  |v|_1 <= r            Simplex            v >= 0, sum v = r
    GroupBall       sum over rows |v_i|_2 <= r         Binary, Ternary    {-1, 1}, {-1, 0, 1}

A vector v is one leaf of one stage's weights, flattened; a bound holds coordinate by coordinate.
`ByLeaf` and `ByRun` give different sets to different weights.

Stationarity on a convex set is the fixed point of the projected gradient step, theta = P(theta - g); its
violation |theta - P(theta - g)| is |g| when free. What the step leaves behind,
(theta - g) - P(theta - g), lies in the normal cone at P(theta - g): the multiplier of the constraint,
with complementarity by construction. On a finite set there is no such condition; there the violation is
the decrease of the linear model, max g.(theta - v) over the set, coordinate by coordinate.

Projections on balls and the simplex are optax's.
"""

import abc
from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from hjcontrol._ground.concrete import known_to_fail


class AbstractControlSet(eqx.Module):
    """A closed set for the weights. `convex`: whether a projected gradient step means anything;
    `elementwise`: whether each weight has its own bounds."""

    convex: ClassVar[bool] = True
    elementwise: ClassVar[bool] = False

    @abc.abstractmethod
    def nearest(self, v: Array) -> Array:
        """Nearest point of the set to one leaf of one stage's weights."""

    def project_stage(self, theta: PyTree[Array], run: int = 0) -> PyTree[Array]:
        """Nearest weights of one stage, of the run `run`."""
        del run
        return jax.tree.map(self.nearest, theta)

    def project(self, weights: PyTree[Array]) -> PyTree[Array]:
        """Nearest weights in the set. Every leaf has its run's stages in front."""
        if not isinstance(weights, tuple) or hasattr(weights, "_fields"):
            return jax.vmap(self.project_stage)(weights) if jax.tree.leaves(weights) else weights
        return tuple(
            jax.vmap(lambda th, r=r: self.project_stage(th, r))(theta)
            if jax.tree.leaves(theta)
            else theta
            for r, theta in enumerate(weights)
        )

    def bounds(self) -> tuple[Array | float, Array | float]:
        """Lower and upper bound of each weight, where the set is `elementwise`."""
        raise ValueError(f"{type(self).__name__} is not a set of bounds on single weights.")

    def active(
        self, weights: PyTree[Array], gradient: PyTree[Array], within: Array
    ) -> tuple[PyTree[Array], PyTree[Array]]:
        """For an `elementwise` set: which weights lie `within` a bound that their gradient presses on,
        and every weight's bound on that side (its own value where it is free)."""
        lower, upper = self.bounds()

        def of(t: Array, g: Array) -> tuple[Array, Array]:
            low, high = (jnp.asarray(b, t.dtype) for b in (lower, upper))
            below, above = (g > 0) & (t - low <= within), (g < 0) & (high - t <= within)
            return below | above, jnp.where(below, low, jnp.where(above, high, t))

        pairs = jax.tree.map(of, weights, gradient)
        return jax.tree.transpose(jax.tree.structure(weights), jax.tree.structure((0, 0)), pairs)

    def normal(self, weights: PyTree[Array], gradient: PyTree[Array]) -> PyTree[Array]:
        """The multiplier: what a projected gradient step leaves behind, an element of the normal cone;
        `-gradient` at a stationary point."""
        moved = jax.tree.map(jnp.subtract, weights, gradient)
        return jax.tree.map(jnp.subtract, moved, self.project(moved))

    def violation(self, weights: PyTree[Array], gradient: PyTree[Array]) -> PyTree[Array]:
        """`theta - P(theta - g)`, zero at a stationary point, shaped like the weights."""
        moved = self.project(jax.tree.map(jnp.subtract, weights, gradient))
        return jax.tree.map(jnp.subtract, weights, moved)

    def stationarity(self, weights: PyTree[Array], gradient: PyTree[Array]) -> Float[Array, ""]:
        """Largest coordinate of the violation; zero at a stationary point."""
        return largest(self.violation(weights, gradient))


def largest(tree: PyTree[Array]) -> Float[Array, ""]:
    """Largest absolute coordinate; 0 for none."""
    sizes = jax.tree.map(lambda a: jnp.max(jnp.abs(a), initial=0.0), tree)
    return jax.tree.reduce(jnp.maximum, sizes, jnp.asarray(0.0))


class Free(AbstractControlSet):
    """No constraint."""

    elementwise: ClassVar[bool] = True

    def nearest(self, v):
        return v

    def project(self, weights):
        return weights

    def bounds(self):
        return -jnp.inf, jnp.inf

    def violation(self, weights, gradient):
        del weights  # theta - (theta - g) would round g to the last digit of theta
        return gradient


class Box(AbstractControlSet):
    """Every weight between `lower` and `upper`."""

    elementwise: ClassVar[bool] = True

    lower: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    upper: Float[Array, ""] = eqx.field(converter=jnp.asarray)

    def __check_init__(self):
        if known_to_fail(self.lower <= self.upper):
            raise ValueError(
                f"Box: lower <= upper is needed; found {float(self.lower)} and {float(self.upper)}."
            )

    def nearest(self, v):
        return jnp.clip(v, self.lower.astype(v.dtype), self.upper.astype(v.dtype))

    def project(self, weights):
        return jax.tree.map(self.nearest, weights)

    def bounds(self):
        return self.lower, self.upper


class Nonnegative(AbstractControlSet):
    """Every weight `>= 0`."""

    elementwise: ClassVar[bool] = True

    def nearest(self, v):
        return jnp.maximum(v, 0)

    def bounds(self):
        return 0.0, jnp.inf


class _Ball(AbstractControlSet):
    """A set of one size `radius > 0`."""

    radius: Float[Array, ""] = eqx.field(converter=jnp.asarray)

    def __check_init__(self):
        if known_to_fail(self.radius > 0):
            raise ValueError(
                f"{type(self).__name__}: `radius` must be positive; found {float(self.radius)}."
            )


class L2Ball(_Ball):
    """Each stage's leaf in a Euclidean ball."""

    def nearest(self, v):
        from optax.projections import projection_l2_ball

        return projection_l2_ball(v, self.radius.astype(v.dtype))


class L1Ball(_Ball):
    """Each stage's leaf in a ball of the sum norm: sparse weights."""

    def nearest(self, v):
        from optax.projections import projection_l1_ball

        flat = projection_l1_ball(v.ravel(), self.radius.astype(v.dtype))
        return flat.reshape(v.shape)


class Simplex(_Ball):
    """Each stage's leaf nonnegative with sum `radius`."""

    def nearest(self, v):
        from optax.projections import projection_simplex

        flat = projection_simplex(v.ravel(), self.radius.astype(v.dtype))
        return flat.reshape(v.shape)


class GroupBall(_Ball):
    """The rows' Euclidean norms in a ball of the sum norm: whole rows (units) vanish. A vector's rows
    are its entries."""

    def nearest(self, v):
        from optax.projections import projection_l1_ball

        rows = v.reshape(v.shape[0], -1) if v.ndim else v.reshape(1, 1)
        norms = jnp.linalg.norm(rows, axis=1)
        kept = projection_l1_ball(norms, self.radius.astype(v.dtype))
        scale = jnp.where(norms > 0, kept / jnp.where(norms > 0, norms, 1), 0)
        return (rows * scale[:, None]).reshape(v.shape)


class _Finite(AbstractControlSet):
    """Each weight in a finite set within [-1, 1]. `relaxed` is its convex hull."""

    convex: ClassVar[bool] = False

    @property
    def relaxed(self) -> Box:
        """The convex hull."""
        return Box(-1.0, 1.0)

    def violation(self, weights, gradient):
        return jax.tree.map(lambda t, g: g * t + jnp.abs(g), weights, gradient)


class Binary(_Finite):
    """Every weight -1 or 1."""

    def nearest(self, v):
        return jnp.where(v >= 0, 1, -1).astype(v.dtype)


class Ternary(_Finite):
    """Every weight -1, 0 or 1."""

    def nearest(self, v):
        return jnp.clip(jnp.round(v), -1, 1).astype(v.dtype)


class ByLeaf(AbstractControlSet):
    """A set for the leaves of each name (a field of a module or named tuple, a key of a dictionary);
    the others are free.

    `ByLeaf(W=L1Ball(3.0), step=Nonnegative())`
    """

    sets: dict[str, AbstractControlSet]

    def __init__(self, sets: Mapping[str, AbstractControlSet] | None = None, **named):
        self.sets = dict(sets or {}) | named
        for name, of in self.sets.items():
            if not isinstance(of, AbstractControlSet):
                raise ValueError(
                    f"ByLeaf: {name!r} needs a control set; found {type(of).__name__}."
                )

    def nearest(self, v):
        return v

    def project_stage(self, theta, run=0):
        def one(path: tuple[Any, ...], v: Array) -> Array:
            names = [getattr(k, "name", getattr(k, "key", None)) for k in path]
            found = [self.sets[n] for n in names if n in self.sets]
            return found[-1].nearest(v) if found else v

        return jax.tree_util.tree_map_with_path(one, theta)


class ByRun(AbstractControlSet):
    """A set for each run of equal stages, in order of depth; one for every run of the chain."""

    sets: tuple[AbstractControlSet, ...] = eqx.field(converter=tuple)

    def nearest(self, v):
        return v

    def project_stage(self, theta, run=0):
        return self.sets[run].project_stage(theta, run)
