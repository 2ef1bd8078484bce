r"""Where the weights may lie: $\theta_k \in \Theta$.

    Free            R^m                                Box, Nonnegative   lower <= theta <= upper
    L2Ball, L1Ball  |v|_2 <= r,  |v|_1 <= r            Simplex            v >= 0, sum v = r
    GroupBall       sum over rows |v_i|_2 <= r         Binary, Ternary    {-1, 1}, {-1, 0, 1}

A vector v is one leaf of one stage's weights, flattened; a bound holds coordinate by coordinate.
`ByLeaf` and `ByRun` (see `product_sets`) give different sets to different weights: Theta is a product,
and everything below is asked leaf by leaf.

Stationarity on a convex set is the fixed point of the projected gradient step, theta = P(theta - g); its
violation |theta - P(theta - g)| is |g| when free. What the step leaves behind,
(theta - g) - P(theta - g), lies in the normal cone at P(theta - g): the multiplier of the constraint,
with complementarity by construction. On a finite set there is no such condition; there the violation is
the decrease of the linear model, max g.(theta - v) over the set, coordinate by coordinate, and the
multiplier is the convex hull's.

Projections on balls and the simplex are optax's.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known_to_fail
from hjcontrol._ground.shown import Shown

Path = tuple[Any, ...]  # of a leaf within one stage's weights, as `jax.tree_util` gives it


class AbstractControlSet(Shown):
    """A closed set for the weights. It declares

    - `convex`: whether a projected gradient step means anything;
    - `elementwise`: whether each weight has its own bounds;
    - `smooth`: whether finitely many smooth constraints describe it, auxiliary variables allowed, that
      have multipliers at every point of it: what a nonlinear program can take.
    """

    @property
    def convex(self) -> bool:
        return True

    @property
    def elementwise(self) -> bool:
        return False

    @property
    def smooth(self) -> bool:
        return self.elementwise

    @abc.abstractmethod
    def nearest(self, v: Array) -> Array:
        """Nearest point of the set to one leaf of one stage's weights."""

    def at(self, path: Path, run: int) -> "AbstractControlSet":
        """The set of one leaf, of the run `run`."""
        del path, run
        return self

    def interval(self, v: Array) -> tuple[Array, Array]:
        """Lower and upper bounds of one leaf of one stage's weights, shaped like it."""
        del v
        raise ValueError(f"{type(self).__name__} is not a set of bounds on single weights.")

    def leaf_violation(self, v: Array, g: Array) -> Array:
        """`violation` of one leaf."""
        return v - self.nearest(v - g)

    def leaf_normal(self, v: Array, g: Array) -> Array:
        """`normal` of one leaf."""
        return (v - g) - self.nearest(v - g)

    def check(self, weights: PyTree[Any]) -> None:
        """Raise `ValueError` unless the set fits weights of these shapes."""
        for r, theta in enumerate(weights):
            for path, leaf in jax.tree_util.tree_leaves_with_path(theta):
                self.at(path, r).check_leaf(jax.tree_util.keystr(path), leaf.shape[1:])

    def check_leaf(self, name: str, shape: tuple[int, ...]) -> None:
        """Raise `ValueError` unless the set fits a leaf of this shape in every stage."""
        del name, shape

    def project_stage(self, theta: PyTree[Array], run: int = 0) -> PyTree[Array]:
        """Nearest weights of one stage, of the run `run`."""
        return _over_stage(self, lambda of, v: of.nearest(v), run, theta)

    def project(self, weights: PyTree[Array]) -> PyTree[Array]:
        """Nearest weights in the set. Every leaf has its run's stages in front."""
        return _over_all(self, lambda of, v: of.nearest(v), weights)

    def bounds_stage(self, theta: PyTree[Array], run: int = 0) -> tuple[PyTree, PyTree]:
        """Lower and upper bounds of one stage's weights, where the set is `elementwise`: two trees
        shaped like them."""
        ends = [_over_stage(self, lambda of, v, e=e: of.interval(v)[e], run, theta) for e in (0, 1)]
        return ends[0], ends[1]

    def bounds(self, weights: PyTree[Array]) -> tuple[PyTree[Array], PyTree[Array]]:
        """Lower and upper bounds of all weights, where the set is `elementwise`: two trees shaped like
        them."""
        ends = [_over_all(self, lambda of, v, e=e: of.interval(v)[e], weights) for e in (0, 1)]
        return ends[0], ends[1]

    def active(
        self, weights: PyTree[Array], gradient: PyTree[Array], within: Array
    ) -> tuple[PyTree[Array], PyTree[Array]]:
        """For an `elementwise` set: which weights lie `within` a bound that their gradient presses on,
        and every weight's bound on that side (its own value where it is free)."""

        def of(t: Array, g: Array, low: Array, high: Array) -> tuple[Array, Array]:
            below, above = (g > 0) & (t - low <= within), (g < 0) & (high - t <= within)
            return below | above, jnp.where(below, low, jnp.where(above, high, t))

        pairs = jax.tree.map(of, weights, gradient, *self.bounds(weights))
        return jax.tree.transpose(jax.tree.structure(weights), jax.tree.structure((0, 0)), pairs)

    def normal(self, weights: PyTree[Array], gradient: PyTree[Array]) -> PyTree[Array]:
        """The multiplier: what a projected gradient step leaves behind, an element of the normal cone;
        `-gradient` at a stationary point."""
        return _over_all(self, lambda of, v, g: of.leaf_normal(v, g), weights, gradient)

    def violation(self, weights: PyTree[Array], gradient: PyTree[Array]) -> PyTree[Array]:
        """`theta - P(theta - g)`, zero at a stationary point, shaped like the weights."""
        return _over_all(self, lambda of, v, g: of.leaf_violation(v, g), weights, gradient)

    def stationarity(self, weights: PyTree[Array], gradient: PyTree[Array]) -> Float[Array, ""]:
        """Largest coordinate of the violation; zero at a stationary point."""
        return largest(self.violation(weights, gradient))


def _over_all(
    of_set: AbstractControlSet, f: Callable[..., Array], *trees: PyTree[Array]
) -> PyTree[Array]:
    """`f(set, leaf, ...)` of every leaf of every stage; all have their run's stages in front."""

    def along(run: int, *parts: PyTree[Array]) -> PyTree[Array]:
        of_stage = jax.vmap(lambda *stage: _over_stage(of_set, f, run, *stage))
        return of_stage(*parts) if jax.tree.leaves(parts[0]) else parts[0]

    if not isinstance(trees[0], tuple) or hasattr(trees[0], "_fields"):  # one run's alone
        return along(0, *trees)
    return tuple(along(r, *parts) for r, parts in enumerate(zip(*trees, strict=True)))


def _over_stage(
    of_set: AbstractControlSet, f: Callable[..., Array], run: int, *stage: PyTree[Array]
) -> PyTree[Array]:
    """`f(set, leaf, ...)` of every leaf of one stage."""
    one = lambda path, *leaves: f(of_set.at(path, run), *leaves)
    return jax.tree_util.tree_map_with_path(one, *stage)


def largest(tree: PyTree[Array]) -> Float[Array, ""]:
    """Largest absolute coordinate; 0 for none."""
    sizes = jax.tree.map(lambda a: jnp.max(jnp.abs(a), initial=0.0), tree)
    return jax.tree.reduce(jnp.maximum, sizes, jnp.asarray(0.0))


class _Bounds(AbstractControlSet):
    """A set that bounds weights one by one."""

    @property
    def elementwise(self) -> bool:
        return True


class Free(_Bounds):
    """No constraint."""

    def nearest(self, v):
        return v

    def interval(self, v):
        return jnp.full_like(v, -jnp.inf), jnp.full_like(v, jnp.inf)

    def leaf_violation(self, v, g):
        del v  # theta - (theta - g) would round g to the last digit of theta
        return g

    def stationarity(self, weights, gradient):
        del weights
        return largest(gradient)

    def leaf_normal(self, v, g):
        return jnp.zeros_like(v)


@admits()
class Box(_Bounds):
    """Every weight between `lower` and `upper`: numbers, or arrays that broadcast against the leaf of
    one stage, `ByLeaf(W=Box(low, high))`.

    **Example:**

        >>> import jax.numpy as jnp, hjcontrol as hj
        >>> hj.control.Box(-1.0, 1.0).nearest(jnp.array([-3.0, 0.5])).tolist()
        [-1.0, 0.5]
    """

    lower: Float[Array, "..."] = eqx.field(converter=jnp.asarray)
    upper: Float[Array, "..."] = eqx.field(converter=jnp.asarray)

    def __check_init__(self):
        try:
            low, high = jnp.broadcast_arrays(self.lower, self.upper)
        except ValueError:
            raise ValueError(
                "Box: `lower` and `upper` must broadcast against each other; found shapes "
                f"{self.lower.shape} and {self.upper.shape}."
            ) from None
        if known_to_fail(low <= high):
            worst = jnp.argmax(jnp.ravel(low - high))
            place = "" if low.ndim == 0 else f" at entry {int(worst)}"
            raise ValueError(
                f"Box: lower <= upper is needed; found {float(low.ravel()[worst])} and "
                f"{float(high.ravel()[worst])}{place}."
            )

    def nearest(self, v):
        return jnp.clip(v, *self.interval(v))

    def interval(self, v):
        self.check_leaf("", v.shape)
        low, high = (jnp.broadcast_to(b.astype(v.dtype), v.shape) for b in (self.lower, self.upper))
        return low, high

    def check_leaf(self, name, shape):
        for end, b in (("lower", self.lower), ("upper", self.upper)):
            fits = b.ndim <= len(shape) and all(
                m in (1, n) for m, n in zip(b.shape[::-1], shape[::-1], strict=False)
            )
            if not fits:
                raise ValueError(
                    f"Box: `{end}` must broadcast against one stage's leaf{name and ' ' + name} of shape "
                    f"{shape}; found shape {b.shape}. Give each leaf its own, "
                    "`ByLeaf(name=Box(lower, upper))`, and each run by `ByRun`."
                )


class Nonnegative(_Bounds):
    """Every weight `>= 0`."""

    def nearest(self, v):
        return jnp.maximum(v, 0)

    def interval(self, v):
        return jnp.zeros_like(v), jnp.full_like(v, jnp.inf)


class _Ball(AbstractControlSet):
    """A set of one size `radius > 0`."""

    radius: Float[Array, ""] = eqx.field(converter=jnp.asarray)

    def __check_init__(self):
        if known_to_fail(self.radius > 0):
            raise ValueError(
                f"{type(self).__name__}: `radius` must be positive; found {float(self.radius)}."
            )


@admits(radius=">= 0")
class L2Ball(_Ball):
    """Each stage's leaf in a Euclidean ball."""

    @property
    def smooth(self) -> bool:
        return True

    def nearest(self, v):
        from optax.projections import projection_l2_ball

        return projection_l2_ball(v, self.radius.astype(v.dtype))


@admits(radius=">= 0")
class L1Ball(_Ball):
    """Each stage's leaf in a ball of the sum norm: sparse weights."""

    @property
    def smooth(self) -> bool:
        return True

    def nearest(self, v):
        from optax.projections import projection_l1_ball

        flat = projection_l1_ball(v.ravel(), self.radius.astype(v.dtype))
        return flat.reshape(v.shape)


@admits(radius=">= 0")
class Simplex(_Ball):
    """Each stage's leaf nonnegative with sum `radius`."""

    @property
    def smooth(self) -> bool:
        return True

    def nearest(self, v):
        from optax.projections import projection_simplex

        flat = projection_simplex(v.ravel(), self.radius.astype(v.dtype))
        return flat.reshape(v.shape)


@admits(radius=">= 0")
class GroupBall(_Ball):
    """The rows' Euclidean norms in a ball of the sum norm: whole rows (units) vanish. A vector's rows
    are its entries.

    Not `smooth`: where a row vanishes the cone |v_i|_2 <= t_i has its apex, and |v_i|^2 <= t_i^2 has no
    multipliers there.
    """

    def nearest(self, v):
        from optax.projections import projection_l1_ball

        rows = v.reshape(v.shape[0], -1) if v.ndim else v.reshape(1, 1)
        norms = jnp.linalg.norm(rows, axis=1)
        kept = projection_l1_ball(norms, self.radius.astype(v.dtype))
        scale = jnp.where(norms > 0, kept / jnp.where(norms > 0, norms, 1), 0)
        return (rows * scale[:, None]).reshape(v.shape)


class _Finite(AbstractControlSet):
    """Each weight in a finite set within [-1, 1]. `relaxed` is its convex hull."""

    @property
    def convex(self) -> bool:
        return False

    @property
    def relaxed(self) -> Box:
        """The convex hull."""
        return Box(-1.0, 1.0)

    def leaf_violation(self, v, g):
        return g * v + jnp.abs(g)

    def leaf_normal(self, v, g):
        return self.relaxed.leaf_normal(v, g)


class Binary(_Finite):
    """Every weight -1 or 1."""

    def nearest(self, v):
        return jnp.where(v >= 0, 1, -1).astype(v.dtype)


class Ternary(_Finite):
    """Every weight -1, 0 or 1."""

    def nearest(self, v):
        return jnp.clip(jnp.round(v), -1, 1).astype(v.dtype)
