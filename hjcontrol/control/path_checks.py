"""Constraints along depth, checked against the problem that states them: kinds, names, shapes, inputs.

What a constraint says of x_0 alone is true or false once the problem is stated: inputs are given.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol._ground.concrete import known
from hjcontrol.control.path_constraints import AbstractPathConstraint, Budget
from hjcontrol.control.references import References

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
    key = jax.eval_shape(lambda: jax.random.key(0))
    weights = jax.eval_shape(problem.init, key)
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
    for name, c in zip(names_of(problem.path), problem.path, strict=True):
        if isinstance(c, Budget):
            _check_budget(problem, name, c)
        elif c.on == "states" and c.imposed(len(problem.chain))[0]:
            _check_inputs(problem, name, c)


def _depths(problem: Any, weights: Any, states: Any) -> Any:
    """For each run, and for x_K: which depths, and the shapes of one sample's state, weights, reference."""
    n, depth, start = problem.num_samples, len(problem.chain), 0
    read = problem.references or References()
    one = lambda drop: lambda a: jax.ShapeDtypeStruct(a.shape[drop:], a.dtype)
    for run, theta, xs in zip(problem.chain.runs, weights, states.runs, strict=True):
        place = slice(start, start + run.length)
        given = jax.eval_shape(lambda r, p=place: r.at(p, n), read)
        yield place, *(jax.tree.map(one(d), t) for d, t in ((2, xs), (1, theta), (2, given)))
        start += run.length
    end = jax.eval_shape(lambda r: r.final(depth + 1, n), read)
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
    yield slice(depth, depth + 1), jax.tree.map(one(1), states.final), (), jax.tree.map(one(1), end)


def _width(name: str, c: AbstractPathConstraint, k: int, at: tuple[Any, Any, Any]) -> int:
    try:
        shape = jax.eval_shape(c.values, *at)
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


def _check_budget(problem: Any, name: str, budget: Budget) -> None:
    weights = jax.eval_shape(problem.init, jax.eval_shape(lambda: jax.random.key(0)))
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
    wrong = np.max(np.abs(values) if c.kind == "==" else values, axis=1)
    i = int(np.argmax(np.nan_to_num(wrong, nan=np.inf)))
    if not wrong[i] <= SLACK:
        raise ValueError(
            f"ControlProblem: {name!r} is asked at the inputs (`first=0`), and no weights change them; "
            f"sample {i} violates it by {wrong[i]:.3g}. Leave x_0 out (`first=1`), or change the input."
        )
