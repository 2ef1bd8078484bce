r"""A control problem as a program whose places are its stages.

    place k        (x_k, theta_k) -> (l_k / n, x_{k+1})       of the whole ensemble,  k = 0 .. K-1
    place K        x_K -> Phi / n                              the terminal cost
    and, where weights cost something,   theta -> r(theta),  theta -> c(theta)

Each is marked by a rule of its own whose backward pass is what reverse mode does of the stage, custom
rules included. So every stage is judged, custom rule or not, by the engine that judges any function; a
stage in dispute that holds a rule is judged by that rule, whose line is named.
"""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn
from jaxtyping import Array, Float, PyTree

from hjcontrol._ground.jaxprs import equations
from hjcontrol.control import ControlProblem
from hjcontrol.networks import Weights, advance
from hjcontrol.networks.casts import FromIntegers, bare
from hjcontrol.verification.certificate import Row
from hjcontrol.verification.naming import Source, located
from hjcontrol.verification.places import Place
from hjcontrol.verification.program import Call, called_with
from hjcontrol.verification.rule import GAP
from hjcontrol.verification.verdicts import EXACT
from hjcontrol.verification.witness import examine

STAGE, TERMINAL, COST, COUPLING = "hj_stage", "hj_terminal", "hj_cost", "hj_coupling"


class Marked(NamedTuple):
    """What a marked place is: kind, run, and how many leaves of its inputs are states and weights."""

    kind: str
    run: int
    states: int
    weights: int


def marked(kind: str, run: int, function: Callable, x: PyTree, theta: PyTree, held: PyTree) -> Any:
    """`function(x, theta, held)`, as a place. Its rule is reverse mode of the function as it is."""
    arrays, static = eqx.partition(held, eqx.is_array)
    whole: Any = lambda x, theta, arrays: function(x, theta, eqx.combine(arrays, static))

    place = lambda x, theta, arrays: whole(x, theta, arrays)  # the mark is read off its name
    count = lambda tree: len(jax.tree.leaves(tree))
    place.__name__ = place.__qualname__ = f"{kind}__{run}__{count(x)}__{count(theta)}"
    rule = jax.custom_vjp(place)

    def forward(x: Any, theta: Any, arrays: Any) -> Any:
        floats, rest = eqx.partition((x, theta), eqx.is_inexact_array)

        def moved(floats: Any) -> Any:
            return whole(*eqx.combine(floats, rest), arrays)

        return jax.vjp(moved, floats)

    def backward(pull: Any, p: Any) -> Any:
        (found,) = pull(p)
        return (*found, None)

    rule.defvjp(forward, backward)
    return rule(x, theta, arrays)


def read_mark(place: Place) -> Marked | None:
    """What the place is, if it is one of a chain's."""
    return _read(place.name.split(".")[-1])


def _read(name: str) -> Marked | None:
    parts = name.split("__")
    if len(parts) != 4 or parts[0] not in (STAGE, TERMINAL, COST, COUPLING):
        return None
    return Marked(parts[0], *map(int, parts[1:]))


def staged_cost(problem: ControlProblem, weights: Weights) -> Float[Array, ""]:
    """`J(theta)`, every stage a place."""
    return _cost(marked, problem, weights)


def _open_cost(problem: ControlProblem, weights: Weights) -> Float[Array, ""]:
    """`J(theta)`, every stage in a named scope, so that what it holds are places."""

    def named(kind: str, run: int, function: Callable, *args: PyTree) -> Any:
        with jax.named_scope(f"{kind}__{run}__0__0"):
            return function(*args)

    return _cost(named, problem, weights)


def _cost(marked: Callable, problem: ControlProblem, weights: Weights) -> Float[Array, ""]:
    n = problem.num_samples

    def step(x: Any, theta: Any, held: Any) -> Any:
        stage, running, u = held
        own = eqx.tree_at(lambda p: p.running, problem, running)

        def one(x: Any, u: Any) -> Any:
            cost = jnp.asarray(own.state_cost(x, theta, u), problem.dtype)
            return cost / n, advance(stage, x, theta, u)

        costs, x = jax.vmap(one)(x, u)
        return jnp.sum(costs), x

    def body(r: int, carry: Any, stage: Any, theta: Any, u: Any) -> Any:
        x, total = carry
        cost, x = marked(STAGE, r, step, x, theta, (stage, problem.running, u))
        return (x, total + cost), None

    start = (problem.inputs, jnp.zeros((), problem.dtype))
    (x, total), _ = problem.fold(body, start, weights)
    total = total + marked(TERMINAL, 0, _terminal, x, (), (problem.terminal, problem.targets, n))
    for r, theta in enumerate(weights):
        if not jax.tree.leaves(theta):
            continue
        if jax.eval_shape(problem.weight_cost, jax.tree.map(lambda a: a[0], theta)) is not None:
            total = total + marked(COST, r, _paid, (), theta, (problem.running, problem.dtype))
        if problem.couples:
            total = total + marked(COUPLING, r, _coupled, (), theta, problem)
    return total


def _terminal(x: PyTree, theta: PyTree, held: Any) -> Float[Array, ""]:
    del theta
    cost, targets, n = held
    each = jax.vmap(lambda x, y: cost(x) if y is None else cost(x, y))(x, targets)
    return jnp.sum(each) / n


def _paid(x: PyTree, theta: PyTree, held: Any) -> Float[Array, ""]:
    del x
    running, dtype = held
    one = lambda th: jnp.asarray(sum((c.weights(th) for c in running), 0.0), dtype)
    return jnp.sum(jax.vmap(one)(theta))


def _coupled(x: PyTree, theta: PyTree, problem: ControlProblem) -> Float[Array, ""]:
    del x
    return problem.coupling(theta)


def chain_program(problem: ControlProblem, weights: Weights, cost: Callable = staged_cost) -> Call:
    """The program of `J(weights)` and of its inputs' costates; whole numbers have none."""
    first = problem.chain.runs[0].stage
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(problem.inputs)[0]]
    whole = first.whole if isinstance(first, FromIntegers) else (False,) * len(paths)
    moved = {path for path, fixed in zip(paths, whole, strict=True) if not fixed}

    def wanted(path: Any) -> bool:
        if path[0].idx == 0:
            return False
        if path[1].idx == 1:
            return True
        return getattr(path[2], "name", "") == "inputs" and tuple(path[3:]) in moved

    def name(path: Any) -> str:
        if path[0].idx == 1 and path[1].idx == 1:
            return "weights" + jax.tree_util.keystr(tuple(path[2:]))
        return ""

    return called_with(cost, (problem, weights), wanted, name=name, quick=True)


def cut_inside(problem: ControlProblem, weights: Weights, call: Call, seed: int) -> list[Row]:
    """What each `stop_gradient` inside a stage cuts: the stage's own derivative does not see it."""
    if all(_jax_cuts(eqn) for eqn in equations(call.program.closed.jaxpr)):
        return []
    whole = chain_program(problem, weights, _open_cost)
    others = lambda place: not place.ends or place.source.inside_jax
    rows = examine(whole.program, whole.leaves, seed=seed, skip=others).rows
    return [_staged(problem, row) for row in rows]


def _jax_cuts(eqn: JaxprEqn) -> bool:
    """Whether an equation cuts no derivative, or is JAX's own."""
    return eqn.primitive.name != "stop_gradient" or located(eqn, Source()).inside_jax


def _staged(problem: ControlProblem, row: Row) -> Row:
    """The row with its stage, which is read off its named scopes."""
    mark = next(m for m in map(_read, row.scope.split("/")) if m is not None)
    scope = "/".join(part for part in row.scope.split("/") if _read(part) is None)
    k, iteration = _start(problem, mark), row.iteration or ()
    if mark.kind == STAGE and problem.chain.runs[mark.run].length > 1 and iteration:
        k, iteration = k + iteration[0], iteration[1:]
    source = dataclasses.replace(row.source, scope=scope)
    return dataclasses.replace(row, place=-1, stage=k, source=source, iteration=iteration or None)


def gradient_of(problem: ControlProblem, call: Call, flat: Sequence[Any]) -> Weights:
    """The gradient by weights, from the program's flat one."""
    leaves: list[Any] = [None] * len(call.leaves)
    for k, g in zip(call.at, flat, strict=True):
        leaves[k] = g
    return jax.tree.unflatten(call.structure, leaves)[1][1]


class Depths(NamedTuple):
    """Gaps by stage as measured: `(K + 1,)` and `(K,)`, NaN where no place says something."""

    states: np.ndarray
    weights: np.ndarray
    state_error: float = 0.0
    weight_error: float = 0.0


def by_depth(problem: ControlProblem, call: Call, tables: dict[int, np.ndarray]) -> Depths:
    """Tables as numbers by stage. Weights that stages share stand at the first of them."""
    K = len(problem.chain)
    found = Depths(np.zeros(K + 1), np.zeros(K))
    for i, table in tables.items():
        place = call.program.places[i]
        mark = read_mark(place)
        if mark is None:
            continue
        maps, groups = call.program.maps[i], call.program.groups[i]
        for k, group in enumerate(groups):
            tensor = _tensor(place, mark, maps.inputs[group[0]])
            gaps = np.reshape(table[..., k, GAP], -1)
            start, run = _start(problem, mark), problem.chain.runs[mark.run]
            if mark.kind == TERMINAL:
                found.states[K] = max(found.states[K], gaps.max(initial=0.0))
            elif tensor == "state":
                at = slice(start, start + run.length)
                found.states[at] = np.fmax(found.states[at], gaps)
            elif mark.kind == STAGE and not run.tied:
                at = slice(start, start + run.length)
                found.weights[at] = np.fmax(found.weights[at], gaps)
            elif tensor == "weights":
                found.weights[start] = np.fmax(found.weights[start], gaps.max(initial=0.0))
    own = [k < run.sets for run in problem.chain.runs for k in range(run.length)]
    return found._replace(weights=np.where(own, found.weights, np.nan))


def capped(problem: ControlProblem, call: Call, depths: Depths, rows: Sequence[Row]) -> Depths:
    """Gaps that a trial found to be roundoff, as the trial measured them."""
    for row in rows:
        mark = read_mark(call.program.places[row.place])
        if mark is None or row.verdict != EXACT or row.kink or not np.isfinite(row.gap):
            continue
        start = _start(problem, mark)
        stages = 1 if mark.kind == TERMINAL else problem.chain.runs[mark.run].length
        own = depths.states if row.tensor == "state" else depths.weights
        part = own[start : start + stages]
        here = range(start, start + stages)
        over = [r for r in rows if r.stage in here and r.tensor == row.tensor]
        if all(r.verdict == EXACT and not r.kink for r in over):
            part[:] = np.minimum(part, max(r.gap for r in over))
    return depths


def _start(problem: ControlProblem, mark: Marked) -> int:
    if mark.kind == TERMINAL:
        return len(problem.chain)
    return sum(run.length for run in problem.chain.runs[: mark.run])


def _tensor(place: Place, mark: Marked, position: int) -> str:
    consts = place.eqn.params.get("num_consts", 0)
    k = position - consts
    return "state" if k < mark.states else "weights" if k < mark.states + mark.weights else ""


def titled(problem: ControlProblem, call: Call, row: Row) -> Row:
    """The row with its stage, and the stage's name and line where no rule inside speaks."""
    place = call.program.places[row.place]
    mark = read_mark(place)
    if mark is None:
        return row
    start, iteration = _start(problem, mark), row.iteration or ()
    turns = len(place.lengths)
    tensor = (
        "state"
        if mark.kind == TERMINAL
        else _tensor(place, mark, row.argument if row.entered is None else row.entered)
    )
    own = row.rule == place.name
    k = start
    if mark.kind == COST and own and row.index and not problem.chain.runs[mark.run].tied:
        k = start + row.index[0]
    shared = tensor == "weights" and problem.chain.runs[mark.run].tied
    if mark.kind == STAGE:
        k = start + (iteration[0] if turns and iteration and not shared else 0)
    source = stage_source(problem, k) if own else row.source
    return dataclasses.replace(
        row,
        stage=k,
        tensor="weights" if mark.kind in (COST, COUPLING) else tensor,
        rule=_what(problem, mark, k) if own else row.rule,
        source=source,
        iteration=iteration[turns:] or None,
    )


def one_each(rows: Sequence[Row]) -> list[Row]:
    """Stages that share their weights share their row, the worst of theirs."""
    found: dict[Any, Row] = {}
    for row in rows:
        key = (row.stage, row.tensor, row.rule, row.argument, row.parameter, row.place)
        if row.stage is None:
            key = (id(row),)
        if key not in found or row.gap > found[key].gap:
            found[key] = row
    return list(found.values())


def _what(problem: ControlProblem, mark: Marked, k: int) -> str:
    if mark.kind in (COST, COUPLING):
        return f"cost of the weights of {stage_name(problem, k)}"
    return stage_name(problem, k)


def stage_name(problem: ControlProblem, k: int) -> str:
    """What a person calls stage `k`: the user's own class or function."""
    if k == len(problem.chain):
        return "terminal cost"
    inner = _piece(problem, k)
    return getattr(inner, "__name__", type(inner).__name__)


def _piece(problem: ControlProblem, k: int) -> Any:
    for run in problem.chain.runs:
        if k < run.length:
            stage = bare(run.stage)
            return getattr(stage, "function", getattr(stage, "rest", stage))
        k -= run.length
    raise IndexError("stage index out of range")


def stage_source(problem: ControlProblem, k: int) -> Source:
    """Where stage `k` was written."""
    piece = problem.terminal if k == len(problem.chain) else _piece(problem, k)
    function = inspect.unwrap(piece) if inspect.isfunction(piece) else type(piece).__call__
    function = (
        inspect.unwrap(getattr(type(piece), "step", function))
        if hasattr(type(piece), "step")
        else function
    )
    code = getattr(function, "__code__", None)
    if code is None:
        return Source()
    return Source(
        code.co_filename,
        code.co_firstlineno,
        code.co_qualname if hasattr(code, "co_qualname") else code.co_name,
        library=False,
    )
