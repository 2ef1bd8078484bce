r"""A problem whose constraints are priced: their multipliers are costs, and nothing is constrained.

    Lagrangian           nu.c
    augmented, "=":      nu.c + rho/2 |c|^2                          nu <- nu + rho c
    augmented, "<=":     (|max(0, nu + rho c)|^2 - |nu|^2) / (2 rho)    nu <- max(0, nu + rho c)

nu   multipliers of the constraint beside the *mean* over samples: `(n, m)` of a terminal constraint,
     `(n, K + 1, m)` of one along depth, a number of a budget          rho   strength, > 0

The priced problem is a `ControlProblem` again, of the same chain; its multipliers are leaves of its
references, and rho is a leaf of its costs. At a fixed point of the updates (Hestenes 1969, Powell 1969)
the constraints hold, and its costates are those of the constrained problem.
"""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree, Real

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known_to_fail
from hjcontrol._ground.shapes import of_drawn
from hjcontrol.control.costs import AbstractRunningCost
from hjcontrol.control.path_checks import names_of, on_samples, widths
from hjcontrol.control.path_constraints import AbstractPathConstraint, Budget
from hjcontrol.control.problem import ControlProblem
from hjcontrol.control.references import Prices, References
from hjcontrol.control.terminal_constraint import TerminalConstraint
from hjcontrol.control.trajectory import Trajectory, swapped
from hjcontrol.networks import Weights
from hjcontrol.networks.given import reference_of

Path = Mapping[str, Array]


def price(
    kind: str, nu: Float[Array, " m"], c: Float[Array, " m"], rho: Float[Array, ""] | None
) -> Float[Array, ""]:
    """What a constraint with these values costs; the plain Lagrangian without `rho`."""
    if rho is None:
        return nu @ c
    rho = rho.astype(nu.dtype)
    if kind == "<=":
        return (jnp.sum(jnp.maximum(nu + rho * c, 0) ** 2) - nu @ nu) / (2 * rho)
    return nu @ c + 0.5 * rho * (c @ c)


def updated(kind: str, nu: Array, c: Array, rho: ArrayLike) -> Array:
    """Multipliers after one solve of the augmented problem."""
    return jnp.maximum(nu + rho * c, 0) if kind == "<=" else nu + rho * c


class _Along(AbstractRunningCost):
    """The prices of the path constraints of every sample, before x_K."""

    constraints: tuple[AbstractPathConstraint, ...]
    rho: Float[Array, ""] | None

    @property
    def reads(self):
        return "stage"

    def state(self, x, theta, *reference):
        (here,) = reference
        total = 0.0
        for c, own in zip(self.constraints, here.prices, strict=True):
            if own is not None:
                nu, mask = own
                total = total + mask * price(c.kind, nu, c.values(x, theta, here), self.rho)
        return total

    def weights(self, theta):
        return 0.0


class _Spending(AbstractRunningCost):
    """The price of a budget: of the Lagrangian stage by stage, augmented of all weights together."""

    budget: Budget
    nu: Float[Array, ""]
    rho: Float[Array, ""] | None

    @property
    def couples(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.rho is not None

    def state(self, x, theta):
        return 0.0

    def weights(self, theta):
        return self.nu * self.budget.of(theta) if self.rho is None else 0.0

    def whole(self, weights):
        c = self.budget.value(weights)
        return price(self.budget.kind, self.nu[None], c[None], self.rho)


class _End(eqx.Module):
    """The terminal cost with the prices of what holds at x_K."""

    terminal: Callable[..., Float[Array, ""]]
    ending: TerminalConstraint | None
    constraints: tuple[AbstractPathConstraint, ...]
    rho: Float[Array, ""] | None

    def __call__(self, x: PyTree[Array], target: tuple[Any, Any, Any]) -> Float[Array, ""]:
        y, nu, here = target
        total = self.terminal(x) if y is None else self.terminal(x, y)
        if self.ending is not None:
            total = total + price(self.ending.kind, nu, self.ending(x, y), self.rho)
        prices = () if here is None else here.prices
        for c, own in zip(self.constraints if prices else (), prices, strict=True):
            if own is not None:
                total = total + price(c.kind, own[0], c.values(x, (), here), self.rho)
        return total


def path_shapes(problem: ControlProblem) -> dict[str, tuple[int, ...]]:
    """The shape of every path constraint's multipliers, by name: `(n, K + 1, m)`, `()` of a budget."""
    sizes = iter(widths(problem))
    depths = len(problem.chain) + 1
    return {
        name: () if isinstance(c, Budget) else (problem.num_samples, depths, next(sizes))
        for name, c in zip(names_of(problem.path), problem.path, strict=True)
    }


def all_values(problem: ControlProblem, weights: Weights) -> Array:
    """The values of all constraints as one vector, the terminal one's first."""
    states, parts = problem.rollout(weights), []
    if problem.terminal_constraint is not None:
        parts.append(problem.terminal_constraint.values(problem, states.final).ravel())
    if problem.path:
        parts += [v.ravel() for v in path_values(problem, weights, states).values()]
    return jnp.concatenate(parts)


def path_values(
    problem: ControlProblem, weights: Weights, states: Trajectory | None = None
) -> dict[str, Array]:
    """Every path constraint's values, by name: `(n, K + 1, m)`, zero where it is not imposed; a budget's
    is a number."""
    states = problem.rollout(weights) if states is None else states
    n, depths, owned = problem.num_samples, len(problem.chain) + 1, on_samples(problem.path)
    references = References() if problem.references is None else problem.references
    problem = eqx.tree_at(
        lambda p: p.references, problem, references, is_leaf=lambda leaf: leaf is None
    )
    places = [c.imposed(depths - 1) for c in owned]
    starts, start = [], 0
    for run in problem.chain.runs:
        starts.append(slice(start, start + run.length))
        start += run.length
    sizes = widths(problem)

    def one(c: Any, m: int, there: bool, x: Any, theta: Any, read: Any) -> Array:
        if not there:
            return jnp.zeros((n, m), problem.dtype)
        return jax.vmap(lambda x, r: c.values(x, theta, r))(x, read)

    def body(r: int, carry: Any, stage: Any, theta: Any, u: Any, x: Any) -> tuple[Any, Any]:
        read = reference_of(u)
        there = [any(where[starts[r]]) for where in places]
        found = tuple(
            one(c, m, t, x, theta, read) for c, m, t in zip(owned, sizes, there, strict=True)
        )
        return carry, found

    _, outs = problem.fold(body, 0, weights, states.runs)
    last = references.final(depths, n)
    ends = [
        one(c, m, where[-1], states.final, (), last)
        for c, m, where in zip(owned, sizes, places, strict=True)
    ]
    columns = []
    for j, (end, where) in enumerate(zip(ends, places, strict=True)):
        along = jnp.concatenate([*(out[j] for out in outs), end[None]])  # (K + 1, n, m)
        columns.append(jnp.where(jnp.asarray(where)[None, :, None], swapped(along), 0.0))
    each = iter(columns)
    return {
        name: c.value(weights) if isinstance(c, Budget) else next(each)
        for name, c in zip(names_of(problem.path), problem.path, strict=True)
    }


def priced(
    problem: ControlProblem, nu: Array | None, path: Path, rho: Float[Array, ""] | None
) -> ControlProblem:
    """The problem without its constraints, which cost what their multipliers say."""
    owned, names = on_samples(problem.path), names_of(problem.path)
    multipliers = [jnp.asarray(path[name], problem.dtype) for name in names]
    running, references, here = list(problem.running), problem.references, None
    n, depths = problem.num_samples, len(problem.chain) + 1
    if owned:
        places = tuple(c.imposed(depths - 1) for c in owned)
        own = tuple(
            v
            for v, c in zip(multipliers, problem.path, strict=True)
            if isinstance(c, AbstractPathConstraint)
        )
        base = References() if references is None else references
        references = References(base.own, base.stage, base.target, Prices(own, places))
        running.append(_Along(owned, rho))
        if any(where[-1] for where in places):
            here = references.final(depths, n)
    for v, c in zip(multipliers, problem.path, strict=True):
        if isinstance(c, Budget):
            running.append(_Spending(c, v, rho))
    ending = problem.terminal_constraint
    parts = lambda p: (
        p.running,
        p.references,
        p.path,
        p.targets,
        p.terminal,
        p.terminal_constraint,
    )
    ends = ending is not None or here is not None
    changed = (
        tuple(running),
        references,
        (),
        (problem.targets, nu, here) if ends else problem.targets,
        _End(problem.terminal, ending, owned, rho) if ends else problem.terminal,
        None,
    )
    return eqx.tree_at(parts, problem, changed, is_leaf=lambda leaf: leaf is None)


@admits(strength="finite")
def augmented(
    problem: Any,
    nu: Float[Array, "n m"] | None,
    strength: Real[ArrayLike, ""] | float,
    path: Path | None = None,
) -> Any:
    """The problem without its constraints, with their multipliers and a penalty of this strength as
    costs: a `ControlProblem` again.

    **Arguments:** `nu`: multipliers of the terminal constraint, `None` without one; `path`: those of the
    path constraints, by name (see `Solution.path_multipliers`).

    **Raises:** `ValueError` without a constraint, for a strength not positive, or multipliers of another
    shape.
    """
    if known_to_fail(jnp.asarray(strength) > 0):
        raise ValueError(f"augmented: `strength` must be positive; found {strength}.")
    nu, path = _checked("augmented", problem, nu, path)
    return priced(problem, nu, path, jnp.asarray(strength))


@admits()
def lagrangian(problem: Any, nu: Float[Array, "n m"] | None, path: Path | None = None) -> Any:
    """The problem without its constraints, whose costs have their multipliers times their values added:
    stationary where the constrained problem is, with its costates.

    **Arguments:** as for `augmented`.

    **Raises:** `ValueError` without a constraint, or for multipliers of another shape.
    """
    return priced(problem, *_checked("lagrangian", problem, nu, path), None)


def _checked(who: str, problem: Any, nu: Any, path: Any) -> tuple[Array | None, dict[str, Array]]:
    constraint = getattr(problem, "terminal_constraint", None)
    along = path_shapes(problem) if getattr(problem, "path", ()) else {}
    if constraint is None and not along:
        raise ValueError(
            f"{who}: a problem with a `terminal_constraint` or a `path` is needed; found none."
        )
    path = {} if path is None else dict(path)
    for name in dict.fromkeys([*along, *path]):
        found = jnp.shape(path[name]) if name in path else "none"
        if found != along.get(name):
            raise ValueError(
                f"{who}: `path` must hold multipliers of shape {along.get(name, 'none')} for "
                f"{name!r}; found {found}."
            )
    if constraint is None:
        if nu is not None:
            raise ValueError(f"{who}: `nu` belongs to a terminal constraint; the problem has none.")
        return None, path
    ends = lambda key: constraint.values(problem, problem.rollout(problem.init(key)).final)
    want = of_drawn(ends).shape
    nu = None if nu is None else jnp.asarray(nu, problem.dtype)
    if nu is None or nu.shape != want:
        found = "none" if nu is None else nu.shape
        raise ValueError(f"{who}: `nu` must have shape {want}; found {found}.")
    return nu, path
