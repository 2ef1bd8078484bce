r"""Constraints along depth: on states, on weights, on both, at every stage of every sample.

    c(x_k^i, theta_k, r_k^i) <= 0  or  = 0            |  multipliers nu_k^i beside the mean, mu = nu / n
    p_k^i = dH_k/dx^i + mu_k^i . dc/dx                |  0 = dH_k/dtheta + sum_i mu_k^i . dc/dtheta
    "<=":  nu >= 0,  c <= 0,  nu c = 0                |  sum over i and k of mu = - dJ/d(bound)

A constraint on states holds at x_1 .. x_K, and reads `c(x)`, `c(x, r)` or `c(x, k, y)`; one on stages
holds at k = 0 .. K-1, and reads `c(x, theta)`, `c(x, theta, r)` or `c(x, theta, k, y)`. `first` and
`last` narrow the depths. A `Budget` binds the weights of all stages together, once for all samples.
"""

import abc
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known, known_to_fail
from hjcontrol._ground.interned import interned
from hjcontrol._ground.shown import Shown
from hjcontrol.control.references import Wants, extras, positional, wanted
from hjcontrol.control.terminal_constraint import flat_values

KINDS = ("<=", "==")


class AbstractPathConstraint(Shown):
    """`values(x, theta, reference)` of one sample at one depth is not positive, or zero."""

    kind: eqx.AbstractVar[str]
    on: eqx.AbstractVar[Any]
    first: eqx.AbstractVar[int | None]
    last: eqx.AbstractVar[int | None]
    name: eqx.AbstractVar[str | None]

    @property
    @abc.abstractmethod
    def reads(self) -> Wants:
        """What the constraint reads besides state and weights."""

    @abc.abstractmethod
    def values(self, x: PyTree[Array], theta: PyTree[Array], reference: Any) -> Float[Array, " m"]:
        """`c` of one sample at one depth, flat."""

    def imposed(self, depth: int) -> tuple[bool, ...]:
        """At which of the depths 0 .. K the constraint holds.

        **Raises:** `ValueError` if it holds at none, or is asked at one that there is not.
        """
        states = self.on == "states"
        low, high = (1, depth) if states else (0, depth - 1)
        first, last = (
            low if self.first is None else self.first,
            high if self.last is None else self.last,
        )
        if not (0 if states else low) <= first <= last <= high:
            raise ValueError(
                f"{type(self).__name__}: a constraint on {self.on} of {depth} stages holds at depths "
                f"{low} to {high}; found `first` = {self.first}, `last` = {self.last}."
            )
        return tuple(first <= k <= last for k in range(depth + 1))


@admits()
class PathConstraint(AbstractPathConstraint):
    """`function` of one sample at one depth is not positive (`kind="<="`), or zero (`"=="`).

    - `function`: `c(x)` of states, or `c(x, theta)` of states and weights, a scalar or an array, which
      is read row by row. With one argument more it reads the problem's reference there, with two more
      the stage's number and the sample's target.
    - `on`: `"states"` (x_1 .. x_K) or `"stages"` (k = 0 .. K-1); a function of one argument is on
      states, any other on stages unless `on` says otherwise.
    - `first`, `last`: the depths between which the constraint holds, both included.
    - `name`: of its multipliers in `solution.path_multipliers`; `"path 0"` and so on without one.

    **Raises:** `ValueError` for another kind, another `on`, or a function of another number of
    arguments.

    **Example:**

        >>> import hjcontrol as hj
        >>> low = hj.control.PathConstraint(lambda x: x[0] - 0.1, name="height")
        >>> low.on, low.kind
        ('states', '<=')
    """

    function: Callable[..., Any]
    kind: str = eqx.field(static=True, default="<=")
    on: Literal["states", "stages"] | None = eqx.field(static=True, default=None)
    first: int | None = eqx.field(static=True, default=None)
    last: int | None = eqx.field(static=True, default=None)
    name: str | None = eqx.field(static=True, default=None)

    def __init__(
        self,
        function: Callable[..., Any],
        kind: str = "<=",
        *,
        on: Literal["states", "stages"] | None = None,
        first: int | None = None,
        last: int | None = None,
        name: str | None = None,
    ):
        kind = "==" if kind == "=" else kind
        if kind not in KINDS:
            raise ValueError(f"PathConstraint: `kind` must be '<=' or '=='; found {kind!r}.")
        if on not in (None, "states", "stages"):
            raise ValueError(f"PathConstraint: `on` must be 'states' or 'stages'; found {on!r}.")
        count = positional(function)
        self.on = on or ("states" if count == 1 else "stages")
        self.function, self.kind, self.name = interned(function), kind, name
        self.first, self.last = first, last
        try:
            wanted(function, self._own)
        except ValueError as error:
            raise ValueError(f"PathConstraint on {self.on}: {error}") from None

    @property
    def _own(self) -> int:
        return 1 if self.on == "states" else 2

    @property
    def reads(self) -> Wants:
        return wanted(self.function, self._own)

    def values(self, x, theta, reference):
        own = (x,) if self.on == "states" else (x, theta)
        return flat_values(self.function(*own, *extras(self.reads, reference)))


@admits()
class StateBox(AbstractPathConstraint):
    """`lower <= x_k <= upper` at x_1 .. x_K, entry by entry; an infinite bound is none.

    `Direct` takes it as bounds of its variables. Its multipliers come for the finite upper bounds first,
    then for the finite lower ones.

    - `lower`, `upper`: numbers, or arrays shaped like one sample's flat state.
    - `first`, `last`, `name`: as for `PathConstraint`; the name is `"state box"` without one.

    **Raises:** `ValueError` for bounds that cross, are NaN, or are all infinite.

    **Example:**

        >>> import jax.numpy as jnp, hjcontrol as hj
        >>> box = hj.control.StateBox(upper=jnp.array([0.1, jnp.inf]))
        >>> print(box.values(jnp.array([0.3, 9.0]), (), None))
        [0.2]
    """

    lower: Float[Array, "..."]
    upper: Float[Array, "..."]
    above: tuple[int, ...] | None = eqx.field(static=True)
    below: tuple[int, ...] | None = eqx.field(static=True)
    first: int | None = eqx.field(static=True, default=None)
    last: int | None = eqx.field(static=True, default=None)
    name: str | None = eqx.field(static=True, default="state box")
    kind: str = eqx.field(static=True, default="<=")
    on: Literal["states", "stages"] = eqx.field(static=True, default="states")

    def __init__(
        self,
        lower: Any = -np.inf,
        upper: Any = np.inf,
        *,
        first: int | None = None,
        last: int | None = None,
        name: str | None = "state box",
    ):
        self.lower, self.upper = (jnp.asarray(b, float) for b in (lower, upper))
        low, high = known(self.lower), known(self.upper)
        if low is None or high is None:
            raise ValueError("StateBox: which bounds are finite must be known; found traced ones.")
        if low.ndim > 1 or high.ndim > 1 or (low.ndim and high.ndim and low.shape != high.shape):
            raise ValueError(
                "StateBox: `lower` and `upper` must be numbers or of one shape (d,); found shapes "
                f"{low.shape} and {high.shape}."
            )
        if np.isnan(low).any() or np.isnan(high).any() or np.any(low > high):
            raise ValueError(
                f"StateBox: `lower` must not exceed `upper`; found {low.tolist()} and {high.tolist()}."
            )
        self.above, self.below = _finite(high), _finite(low)
        if self.above == () and self.below == ():
            raise ValueError("StateBox: at least one bound must be finite; found none.")
        self.first, self.last, self.name, self.kind, self.on = first, last, name, "<=", "states"

    @property
    def reads(self) -> Wants:
        return "nothing"

    def values(self, x, theta, reference):
        flat = ravel_pytree(x)[0]
        high, low = (jnp.broadcast_to(b, flat.shape) for b in (self.upper, self.lower))
        pick = lambda a, places: a if places is None else a[jnp.asarray(places, int)]
        over, under = (flat - high.astype(flat.dtype)), (low.astype(flat.dtype) - flat)
        return jnp.concatenate([pick(over, self.above), pick(under, self.below)])

    def bounds(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Both ends of a flat state of this size."""
        low, high = (np.broadcast_to(np.asarray(b), (size,)) for b in (self.lower, self.upper))
        return low, high

    def of_bounds(self, both: np.ndarray) -> np.ndarray:
        """From multipliers of bounds `(..., d)`, positive at the upper one: those of the rows."""
        pick = lambda a, places: a if places is None else a[..., list(places)]
        high, low = np.maximum(both, 0), np.maximum(-both, 0)
        return np.concatenate([pick(high, self.above), pick(low, self.below)], axis=-1)


def _finite(bound: np.ndarray) -> tuple[int, ...] | None:
    """Where a bound is finite; `None` for everywhere, of a number."""
    if bound.ndim == 0:
        return None if np.isfinite(bound) else ()
    return tuple(int(k) for k in np.flatnonzero(np.isfinite(bound)))


@admits(radius="> 0")
class StateBall(AbstractPathConstraint):
    """`|x_k|^2 <= radius^2` at x_1 .. x_K, for every sample: the sum of squares over all of its state.

    - `first`, `last`, `name`: as for `PathConstraint`; the name is `"state ball"` without one.

    **Example:**

        >>> import jax.numpy as jnp, hjcontrol as hj
        >>> print(hj.control.StateBall(2.0).values(jnp.array([1.0, 1.0]), (), None))
        [-2.]
    """

    radius: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    first: int | None = eqx.field(static=True, default=None)
    last: int | None = eqx.field(static=True, default=None)
    name: str | None = eqx.field(static=True, default="state ball")
    kind: str = eqx.field(static=True, default="<=")
    on: Literal["states", "stages"] = eqx.field(static=True, default="states")

    def __check_init__(self):
        if self.kind != "<=" or self.on != "states":
            raise ValueError("StateBall: it is '<=' on states; state a PathConstraint instead.")
        if known_to_fail(self.radius > 0):
            raise ValueError(f"StateBall: `radius` must be positive; found {self.radius}.")

    @property
    def reads(self) -> Wants:
        return "nothing"

    def values(self, x, theta, reference):
        flat = ravel_pytree(x)[0]
        return jnp.sum(flat**2)[None] - self.radius.astype(flat.dtype) ** 2


@admits(limit="finite")
class Budget(Shown):
    """`sum_k function(theta_k) <= limit` over all stages of the chain, weights that are tied once.

    - `limit`: a number.
    - `function`: of one stage's weights, to a scalar; the sum of their squares without one.
    - `kind`: `"<="` or `"=="`.
    - `name`: of its multiplier, a single number.

    **Example:**

        >>> import jax.numpy as jnp, hjcontrol as hj
        >>> energy = hj.control.Budget(1.0)
        >>> float(energy.spent((jnp.array([[0.5], [0.5]]),)))  # two stages of a run
        0.5
    """

    limit: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    function: Callable[[PyTree[Array]], Float[Array, ""]] | None = None
    kind: str = eqx.field(static=True, default="<=")
    name: str | None = eqx.field(static=True, default="budget")

    def __check_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"Budget: `kind` must be '<=' or '=='; found {self.kind!r}.")
        if self.function is None and known_to_fail(self.limit >= 0):
            raise ValueError(
                "Budget: `limit` must be >= 0, for a sum of squares is; found "
                f"{float(self.limit):g}. Pass a `function` of your own for another cost."
            )

    def of(self, theta: PyTree[Array]) -> Array:
        """What one stage's weights spend."""
        if self.function is not None:
            return jnp.asarray(self.function(theta))
        return sum((jnp.sum(a**2) for a in jax.tree.leaves(theta)), jnp.zeros(()))

    def spent(self, weights: Any) -> Float[Array, ""]:
        """What all stages spend."""
        parts = [jnp.sum(jax.vmap(self.of)(theta)) for theta in weights if jax.tree.leaves(theta)]
        return sum(parts[1:], parts[0])

    def value(self, weights: Any) -> Float[Array, ""]:
        """`c`: spent less the limit."""
        spent = self.spent(weights)
        return spent - self.limit.astype(spent.dtype)
