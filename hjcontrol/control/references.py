r"""What costs and constraints read along depth: targets to track, times, weights that vary, prices.

    l(x_k, theta_k, r_k)          l(x_k, theta_k, k, y)          c(x_k, theta_k, r_k) <= 0

r   the problem's `references` at depth k        k   the stage's number        y   the sample's target

A reference is no state: it has no costate. Its leaves are `(n, K, ...)`, or `(1, K, ...)` for all
samples alike; with K + 1 entries the last one stands at x_K. They are leaves of the problem, so that
other numbers of the same shape compile nothing (`problem.with_references`).
"""

import inspect
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hjcontrol._ground.shown import Shown
from hjcontrol._ground.trees import Tree
from hjcontrol.networks import Chain
from hjcontrol.networks.given import Given

Wants = Literal["nothing", "reference", "stage"]


class Prices(Shown):
    """Multipliers of path constraints, `(n, K + 1, m)` each, and where each constraint is imposed."""

    nu: tuple[Float[Array, "n depths m"], ...]
    imposed: tuple[tuple[bool, ...], ...] = eqx.field(static=True)

    def at(self, depth: slice) -> tuple[tuple[Array, Array] | None, ...]:
        """At some depths: multipliers, and 1 where one is imposed; `None` if at none of them."""

        def one(nu: Array, where: tuple[bool, ...]) -> tuple[Array, Array] | None:
            if not any(where):
                return None
            mask = jnp.asarray(where, nu.dtype)
            return nu[:, depth], jnp.broadcast_to(mask, (len(nu), len(where)))

        pairs = zip(self.nu, self.imposed, strict=True)
        return tuple(one(nu, where[depth]) for nu, where in pairs)


class References(Shown):
    """The user's own `references`, and the stage's number and the sample's target where a cost reads
    them: leaves `(n or 1, K or K + 1 or 1, ...)`. `prices`: of a problem whose constraints are priced."""

    own: Tree = None
    stage: Tree = None
    target: Tree = None
    prices: Any = None  # `Prices` of a problem, one depth's pairs of a stage

    def at(self, depth: slice, samples: int) -> "References":
        """Those of some depths, every leaf `(n, length, ...)`."""
        length = depth.stop - depth.start

        def cut(a: Array) -> Array:
            a = a if a.shape[1] == 1 else a[:, depth]
            return jnp.broadcast_to(a, (samples, length, *a.shape[2:]))

        own, stage, target = jax.tree.map(cut, (self.own, self.stage, self.target))
        prices = None if self.prices is None else self.prices.at(depth)
        return References(own, stage, target, prices)

    def final(self, depths: int, samples: int) -> "References":
        """What is read at x_K, every leaf `(n, ...)`; of K entries the last one, which nothing reads."""

        def one(a: Array) -> Array:
            return jnp.broadcast_to(a[:, min(depths, a.shape[1]) - 1], (samples, *a.shape[2:]))

        own, stage, target = jax.tree.map(one, (self.own, self.stage, self.target))
        last = None if self.prices is None else self.prices.at(slice(depths - 1, depths))
        return References(own, stage, target, jax.tree.map(lambda a: a[:, 0], last))

    def beside(self, chain: Chain, read: tuple[Any, ...], samples: int) -> tuple[Given, ...]:
        """Each run's, beside what its stages read."""
        found, start = [], 0
        for run, u in zip(chain.runs, read, strict=True):
            found.append(Given(u, self.at(slice(start, start + run.length), samples)))
            start += run.length
        return tuple(found)


def positional(function: Callable[..., Any]) -> int | None:
    """How many arguments a function needs; `None` if it does not say."""
    try:
        kinds = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    needed = [p for p in kinds if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return sum(p.default is p.empty for p in needed)


def wanted(function: Callable[..., Any], own: int) -> Wants:
    """What a function reads beside its `own` arguments: nothing, a reference, or stage and target.

    **Raises:** `ValueError` if it needs another number of arguments.
    """
    count = positional(function)
    extra = 0 if count is None else max(count - own, 0)
    if extra > 2:
        raise ValueError(
            f"a function of {own} arguments was expected, or of {own + 1} (with the reference), or of "
            f"{own + 2} (with the stage's number and the sample's target); found one of {count}."
        )
    return ("nothing", "reference", "stage")[extra]


def extras(wants: Wants, reference: Any) -> tuple[Any, ...]:
    """The arguments that a function reads beside its own."""
    if wants == "nothing":
        return ()
    return (reference.own,) if wants == "reference" else (reference.stage, reference.target)


def gathered(
    who: str, references: Any, wants: set[str], targets: Any, shape: tuple[int, int, Any]
) -> References | None:
    """The references of a problem of `shape` (n, K, dtype), whose costs and constraints want these.

    **Raises:** `ValueError` for references that nothing reads, ones that are missing, or other shapes.
    """
    n, depth, dtype = shape
    given = bool(jax.tree.leaves(references))
    if given and "reference" not in wants:
        raise ValueError(
            f"{who}: `references` were given, and no running cost and no path constraint reads them. "
            "State one as a function (x, theta, r), or leave them out."
        )
    if not given and "reference" in wants:
        raise ValueError(
            f"{who}: a running cost or a path constraint reads a reference (it takes one argument "
            "more); found no `references`. Pass them, with leaves (n, K, ...) or (1, K, ...)."
        )
    if not wants - {"nothing"}:
        return None
    stage = target = None
    if "stage" in wants:
        stage = jnp.arange(depth + 1)[None]
        target = jax.tree.map(lambda a: a[:, None], targets)
    return References(shaped(who, references, (n, depth, dtype)), stage, target)


def shaped(who: str, references: Any, shape: tuple[int, int, Any]) -> Any:
    """References as arrays of the problem's precision.

    **Raises:** `ValueError` for a leaf without samples and stages in front.
    """
    n, depth, dtype = shape

    def one(a: Any) -> Array:
        a = jnp.asarray(a)
        if a.ndim < 2 or a.shape[0] not in (1, n) or a.shape[1] not in (1, depth, depth + 1):
            one = f" or (1, {depth}, ...)" if n > 1 else ""
            raise ValueError(
                f"{who}: every leaf of `references` must be ({n}, {depth}, ...){one}, samples and stages "
                f"in front (with {depth + 1} entries the last one stands at the final state); found "
                f"shape {a.shape}."
            )
        return a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a

    return jax.tree.map(one, references)


def referenced(problem: Any, references: Any) -> Any:
    """The problem with other references, shaped as the old ones.

    **Raises:** `ValueError`.
    """
    if problem.references is None or not jax.tree.leaves(problem.references.own):
        raise ValueError(
            "with_references: the problem was stated without `references`; state it anew with them."
        )
    shape = (problem.num_samples, len(problem.chain), problem.dtype)
    new, old = shaped("with_references", references, shape), problem.references.own
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (old, new)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"with_references: `references` must be shaped as before, {shapes[0]}; found {shapes[1]}."
        )
    return eqx.tree_at(lambda p: p.references.own, problem, new)
