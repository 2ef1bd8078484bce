"""Constraints along depth, checked against the problem that states them: kinds, names, shapes, inputs.

What a constraint says of x_0 alone is true or false once the problem is stated: inputs are given.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from hjcontrol._ground.concrete import known
from hjcontrol._ground.shapes import of_drawn
from hjcontrol.control.path_constraints import AbstractPathConstraint, Budget, StateBox
from hjcontrol.control.references import References
from hjcontrol.control.terminal_constraint import NoArrayError

SLACK = 1e-9  # of an input that meets a constraint


def listed(path: Any) -> tuple[Any, ...]:
    """Constraints as a tuple.

    **Raises:** `ValueError` for anything else, or names that two of them share.
    """
    found = tuple(path) if isinstance(path, (tuple, list)) else (path,)
    for c in found:
        if not isinstance(c, AbstractPathConstraint | Budget):
            raise ValueError(
                "ControlProblem: `path` holds PathConstraint, StateBox, StateBall and Budget; found a "
                f"{type(c).__name__}. Wrap a function: hj.control.PathConstraint(c, '<=')."
            )
    names = names_of(found)
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ValueError(
            f"ControlProblem: every path constraint needs a name of its own; found {twice[0]!r} "
            f"{names.count(twice[0])} times. Pass `name=`."
        )
    return found


def names_of(path: tuple[Any, ...]) -> tuple[str, ...]:
    """What the multipliers of each are called."""
    return tuple(c.name or f"path {j}" for j, c in enumerate(path))


def on_samples(path: tuple[Any, ...]) -> tuple[AbstractPathConstraint, ...]:
    """Those that hold for each sample."""
    return tuple(c for c in path if isinstance(c, AbstractPathConstraint))


def widths(problem: Any) -> tuple[int, ...]:
    """How many numbers each constraint of `on_samples` gives at one depth.

    **Raises:** `ValueError` for one that does not accept its state, gives no numbers, or not the same
    number of them at every depth.
    """
    weights = of_drawn(problem.init)
    states = jax.eval_shape(problem.rollout, weights)
    found = []
    for name, c in zip(names_of(problem.path), problem.path, strict=True):
        if not isinstance(c, AbstractPathConstraint):
            continue
        sizes, places = {}, c.imposed(len(problem.chain))
        for k, x, theta, read in _depths(problem, weights, states):
            if any(places[k.start : k.stop]):
                first = k.start + places[k.start : k.stop].index(True)
                sizes[first] = _width(name, c, first, (x, theta, read))
        if len(set(sizes.values())) > 1:
            said = ", ".join(f"{m} at depth {k}" for k, m in sizes.items())
            raise ValueError(
                f"ControlProblem: the path constraint {name!r} must give as many numbers at every depth; "
                f"found {said}. Narrow its depths by `first` and `last`, or state two constraints."
            )
        found.append(next(iter(sizes.values())))
    return tuple(found)


def check_path(problem: Any) -> None:
    """Refuse constraints that do not fit the problem, or that its inputs violate.

    **Raises:** `ValueError` naming the constraint; for an input, sample and violation.
    """
    widths(problem)
    _check_contradictions(problem)
    for name, c in zip(names_of(problem.path), problem.path, strict=True):
        if isinstance(c, Budget):
            _check_budget(problem, name, c)
        elif c.on == "states" and c.imposed(len(problem.chain))[0]:
            _check_inputs(problem, name, c)


def _depths(problem: Any, weights: Any, states: Any) -> Any:
    """For each run, and for x_K: its depths, and the shapes of a sample's state, weights, reference."""
    n, depth, start = problem.num_samples, len(problem.chain), 0
    read = problem.references or References()
    one = lambda drop: lambda a: jax.ShapeDtypeStruct(a.shape[drop:], a.dtype)
    for run, theta, xs in zip(problem.chain.runs, weights, states.runs, strict=True):
        place = slice(start, start + run.length)
        given = jax.eval_shape(lambda r, p=place: r.at(p, n), read)
        yield place, *(jax.tree.map(one(d), t) for d, t in ((2, xs), (1, theta), (2, given)))
        start += run.length
    own = jax.tree.leaves(read.own)
    short = any(a.shape[1] not in (1, depth + 1) for a in own)
    for c in problem.path if short else ():
        wants = isinstance(c, AbstractPathConstraint) and c.reads == "reference"
        if wants and c.imposed(depth)[depth]:
            raise ValueError(
                f"ControlProblem: a path constraint reads a reference at x_{depth}, so `references` "
                f"needs {depth + 1} entries along depth; found {own[0].shape[1]}. Append one, or leave "
                f"the last state out by `last={depth - 1}`."
            )
    end = jax.eval_shape(lambda r: r.final(depth + 1, n), read)
    yield slice(depth, depth + 1), jax.tree.map(one(1), states.final), (), jax.tree.map(one(1), end)


def _width(name: str, c: AbstractPathConstraint, k: int, at: tuple[Any, Any, Any]) -> int:
    try:
        shape = jax.eval_shape(c.values, *at)
    except NoArrayError as error:
        raise ValueError(f"ControlProblem: the path constraint {name!r} {error}") from None
    except Exception as error:  # the function is the user's: it may raise anything
        shapes = [a.shape for a in jax.tree.leaves(at[0])]
        raise ValueError(
            f"ControlProblem: the path constraint {name!r} does not accept its state of shape "
            f"{shapes[0] if len(shapes) == 1 else shapes} at depth {k}: {str(error).splitlines()[0]}"
        ) from error
    if shape.size == 0 or not jnp.issubdtype(shape.dtype, jnp.floating):
        raise ValueError(
            f"ControlProblem: the path constraint {name!r} must give floating numbers; found "
            f"{shape.dtype}[{shape.size}]. (A comparison such as x <= 1 is stated as x - 1.)"
        )
    return shape.size


def _check_contradictions(problem: Any) -> None:
    """Refuse an equality that fixes one coordinate of a state or of weights outside its bounds there."""
    depth, named = len(problem.chain), dict(zip(names_of(problem.path), problem.path, strict=True))
    fixed: dict[str, Any] = {n: c for n, c in named.items() if c.kind == "=="}
    fixed = {n: (c, c.imposed(depth)) for n, c in fixed.items() if not isinstance(c, Budget)}
    boxes = [(c, c.imposed(depth)) for c in problem.path if isinstance(c, StateBox)]
    if end := _ending(problem):
        fixed["terminal constraint"] = end, (*[False] * depth, True)
    references, n = problem.references or References(), problem.num_samples
    unknown = any(known(a) is None for a in jax.tree.leaves(references))
    if not fixed or unknown or not (boxes or problem.control_set.elementwise):
        return
    weights = of_drawn(problem.init)
    states = jax.eval_shape(problem.rollout, weights)
    zeros = lambda tree: jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), tree)
    for r, (at, *shapes) in enumerate(_depths(problem, weights, states)):
        z = tuple(map(zeros, shapes[:2]))
        last = at.start == depth
        read = references.final(depth + 1, n) if last else references.at(at, n)
        # Of the first sample
        read = jax.tree.map(lambda a, last=last: a[:1] if last else a[0], read)
        for name, (c, imposed) in fixed.items():
            here = [k for k in range(at.start, at.stop) if imposed[k]]
            if not here:
                continue
            alike = jnp.asarray(here) - at.start
            own = jax.tree.map(lambda a, alike=alike: a[alike], read)
            limits = [_limits(problem, boxes, k, z, r) for k in here]
            _refuse_outside(name, c, (*z, own), limits, here)


class _Ending(NamedTuple):
    """A terminal equality of the first sample, as if it were one along depth."""

    constraint: Any
    target: Any

    def values(self, x: Any, theta: Any, read: Any) -> Any:
        del theta, read
        return self.constraint(x, self.target)


def _ending(problem: Any) -> _Ending | None:
    c = problem.terminal_constraint
    if (
        c is None
        or c.kind != "="
        or any(known(a) is None for a in jax.tree.leaves(problem.targets))
    ):
        return None
    return _Ending(c, jax.tree.map(lambda a: a[0], problem.targets))


def _limits(problem: Any, boxes: list[Any], k: int, z: tuple[Any, Any], r: int) -> Any:
    """Bounds of one sample's state and of one stage's weights, flat, at depth `k` in run `r`."""
    size = ravel_pytree(z[0])[0].size
    low, high = np.full(size, -np.inf), np.full(size, np.inf)
    for box, imposed in boxes:
        if imposed[k]:
            a, b = box.bounds(size)
            low, high = np.maximum(low, a), np.minimum(high, b)
    ends = [low, high]
    if problem.control_set.elementwise and jax.tree.leaves(z[1]):
        own = problem.control_set.bounds_stage(z[1], r)
        ends = [
            np.append(e, np.asarray(ravel_pytree(b)[0])) for e, b in zip(ends, own, strict=True)
        ]
    else:
        m = ravel_pytree(z[1])[0].size
        ends = [np.append(e, np.full(m, s)) for e, s in zip(ends, (-np.inf, np.inf), strict=True)]
    return ends


def _refuse_outside(name: str, c: Any, at: Any, limits: list[Any], depths: list[int]) -> None:
    """`at`: state and weights that are zero, and what is read at each of the depths, in front."""
    x, theta, read = at
    flat, unravel = ravel_pytree((x, theta))
    values = lambda z, u: c.values(*unravel(z), u)
    there, slope = flat + 0.5 + jnp.arange(flat.size, dtype=flat.dtype), jax.jacobian(values)
    along = lambda u: (slope(flat, u), slope(there, u), values(flat, u))
    found = jax.vmap(along, axis_size=len(depths))(read)
    m = ravel_pytree(x)[0].size
    for k, (low, high), *rows in zip(depths, limits, *map(np.asarray, found), strict=True):
        for a, b, constant in zip(*rows, strict=True):
            places = np.flatnonzero(a)
            if len(places) != 1 or not np.array_equal(a, b):
                continue  # not a condition on one coordinate alone
            i = int(places[0])
            value = -constant / a[i]
            if not low[i] - SLACK <= value <= high[i] + SLACK:
                what = f"coordinate {i} of the state" if i < m else f"weight {i - m} of the stage"
                raise ValueError(
                    f"ControlProblem: the equality {name!r} asks {what} to be {value:.6g} at depth {k}, "
                    f"and its bounds are {low[i]:.6g} to {high[i]:.6g}. Change one of the two."
                )


def _check_budget(problem: Any, name: str, budget: Budget) -> None:
    weights = of_drawn(problem.init)
    if not jax.tree.leaves(weights):
        raise ValueError(f"ControlProblem: {name!r} bounds weights, and no stage has any.")
    for theta in weights:
        if jax.tree.leaves(theta):
            found = jax.eval_shape(lambda th: jax.vmap(budget.of)(th), theta).shape
            if len(found) != 1:
                raise ValueError(
                    f"ControlProblem: {name!r} must give a scalar for one stage's weights; found shape "
                    f"{found[1:]}."
                )


def _check_inputs(problem: Any, name: str, c: AbstractPathConstraint) -> None:
    n, depth = problem.num_samples, len(problem.chain)
    read = (problem.references or References()).at(slice(0, depth), n)
    first = jax.tree.map(lambda a: a[:, 0], read)
    values = known(jax.vmap(lambda x, r: c.values(x, (), r))(problem.inputs, first))
    if values is None:
        return
    broken = np.argwhere(~np.isfinite(values))
    if len(broken):
        i, j = broken[0]
        raise ValueError(
            f"ControlProblem: {name!r} is asked at the inputs (`first=0`), and is {values[i, j]} at "
            f"depth 0 of sample {i}. Leave x_0 out (`first=1`), or change the input."
        )
    wrong = np.max(np.abs(values) if c.kind == "==" else values, axis=1)
    i = int(np.argmax(wrong))
    if wrong[i] > SLACK:
        raise ValueError(
            f"ControlProblem: {name!r} is asked at the inputs (`first=0`), and no weights change them; "
            f"sample {i} violates it by {wrong[i]:.3g}. Leave x_0 out (`first=1`), or change the input."
        )
