"""Many problems, few programs.

    sweep(make_problem, grid, solver)  ->  Sweep        one point of the grid a row

Problems that differ in the values of their arrays alone (strengths, temperatures, data, seeds) are one
program: `run` under `vmap`, the arrays that differ stacked, the others shared. Problems of another shape
or code are another program. Programs are independent jobs, for any `concurrent.futures.Executor`.
"""

import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from hjcontrol._ground.annotations import shown
from hjcontrol._ground.arguments import admits
from hjcontrol._ground.elsewhere import answers
from hjcontrol._ground.record import Record, Told
from hjcontrol._ground.results import RESULTS, name_of
from hjcontrol._ground.shown import Shown
from hjcontrol._ground.threads import one_blas_thread
from hjcontrol.control import ControlProblem
from hjcontrol.solvers.ends import begun
from hjcontrol.solvers.names import by_name
from hjcontrol.solvers.running import Ended, run
from hjcontrol.solvers.solver import AbstractSolver

Point = Mapping[str, Any]
Made = tuple[list[Any], Any]  # leaves and structure


class Sweep(Told, Shown):
    """`points[k]` and where its run ended, `runs[k]`; `num_programs`: how many programs there were."""

    points: list[dict[str, Any]]
    runs: list[Ended]
    num_programs: int = eqx.field(static=True)

    @property
    def best(self) -> int:
        """Which point has the lowest objective; of those that ended with a number."""
        values = [float(r.objective) for r in self.runs]
        if np.isnan(values).all():
            raise ValueError(
                f"Sweep.best: none of the {len(values)} points ended with a number. Look at `runs`, and "
                "solve one of the problems by `hj.solve`, which says what is not finite."
            )
        return int(np.nanargmin(values))

    def as_record(self) -> Record:
        """What this result says of itself."""
        good = sum(bool(r.result == RESULTS.successful) for r in self.runs)
        rows = [
            {**point, "objective": float(r.objective), "stationarity": float(r.stationarity)}
            | {"steps": int(r.num_steps), "result": name_of(r.result)}
            for point, r in zip(self.points, self.runs, strict=True)
        ]
        return Record(
            "Sweep",
            f"{good} of {len(self.runs)} points solved",
            facts={"points": len(self.points), "programs": self.num_programs},
            rows={"points": rows},
        )


@admits(max_steps=">= 0")
def sweep(
    make_problem: Callable[..., Any],
    grid: Mapping[str, Any] | Sequence[Point],
    solver: AbstractSolver | str,
    executor: Executor | None = None,
    *,
    key: Key[Array, ""] | None = None,
    max_steps: int | None = None,
) -> Sweep:
    """Solve one problem for every point of a grid.

    **Arguments:**

    - `make_problem(**point)`: a `ControlProblem`, or one with the weights to start from.
    - `grid`: names with their values, of which all combinations are taken; or a list of points.
    - `solver`: a method that runs inside JAX, or its name.
    - `executor`: where programs run (threads, spawned processes, joblib, dask); here, one after another,
      without it. Other processes get `make_problem`, points and solver, so these must be picklable (by
      cloudpickle, where it is installed), and JAX's precision settings as they are here.
    - `key`: draws the start of problems without one, the same for all; and minibatches.
    - `max_steps`: step limit of each; the method's own default without it.

    **Returns:** a `Sweep`, its points in the order of the grid.

    **Raises:** `ValueError` for an empty grid, something else than a problem, no start, or an `executor`
    whose processes are forks.

    **Example:**

        >>> import jax, jax.numpy as jnp, hjcontrol as hj
        >>> x = jnp.array([[1.0], [-0.5]])
        >>> def make(strength):
        ...     return hj.ControlProblem(
        ...         [hj.readout(1, 1)], x, 2 * x, terminal=hj.least_squares, running=hj.Ridge(strength)
        ...     )
        >>> found = hj.sweep(make, {"strength": [0.1, 1.0]}, hj.Newton(tol=1e-6), key=jax.random.key(0))
        >>> found.num_programs, [bool(r.objective > 0) for r in found.runs]
        (1, [True, True])
    """
    points = _points(grid)
    solver = by_name(solver) if isinstance(solver, str) else solver
    groups = _groups([_stated(make_problem, point, key) for point in points])
    if executor is None:
        found = [_together([made for _, made in g], solver, key, max_steps) for g in groups]
    else:
        rest = (solver, key, max_steps)
        jobs = [(make_problem, [points[k] for k, _ in g], *rest) for g in groups]
        found = answers(executor, _elsewhere, jobs)
    runs: dict[int, Ended] = {}
    for group, answer in zip(groups, found, strict=True):
        runs |= {k: one for (k, _), one in zip(group, answer, strict=True)}
    return Sweep(points, [runs[k] for k in range(len(points))], len(groups))


def _points(grid: Any) -> list[dict[str, Any]]:
    if isinstance(grid, Mapping):
        for name, values in grid.items():
            if isinstance(values, str) or (
                np.ndim(values) == 0 and not isinstance(values, Sequence)
            ):
                raise ValueError(
                    f"sweep: `grid` needs a list of values for each name; `{name}` has {shown(values)}. "
                    f"Write [{shown(values)}] for one value."
                )
        points = [dict(zip(grid, p, strict=True)) for p in itertools.product(*grid.values())]
        points = points if grid else []
    else:
        points = [dict(p) for p in grid]
    if not points:
        raise ValueError("sweep: `grid` must have a point; found none.")
    return points


def _stated(make_problem: Callable[..., Any], point: Point, key: Any) -> Made:
    """The leaves of a problem and its start: arrays, and all else."""
    try:
        inspect.signature(make_problem).bind(**point)
    except TypeError as error:
        raise ValueError(
            f"sweep: `grid` names the arguments of `make_problem`, and they do not fit: {error}; found "
            f"{', '.join(map(str, point)) or 'no names'}."
        ) from error
    except ValueError:  # a function without a signature
        pass
    made = make_problem(**point)
    problem, start = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(problem, ControlProblem):
        raise ValueError(
            "sweep: `make_problem` must give a ControlProblem, or one with weights; found "
            f"{type(problem).__name__} at {dict(point)}."
        )
    return jax.tree.flatten((problem, begun(problem, start, key)))


def _groups(made: list[Made]) -> list[list[tuple[int, Made]]]:
    """The problems of each program, numbered: arrays of one shape, all else equal. Arrays of equal values
    are kept once."""
    groups: list[list[tuple[int, Made]]] = []
    for k, (leaves, tree) in enumerate(made):
        kind = (tree, [_kind(leaf) for leaf in leaves])
        for group in groups:
            first, own = group[0][1]
            if (own, [_kind(leaf) for leaf in first]) == kind:
                shared = [a if _same(a, b) else b for a, b in zip(first, leaves, strict=True)]
                group.append((k, (shared, tree)))
                break
        else:
            groups.append([(k, (leaves, tree))])
    return groups


def _kind(leaf: Any, within: tuple[int, ...] = ()) -> Any:
    """What two leaves of one program have in common. A function that is made anew for every point is the
    same one, if its code and what it holds are. `within`: the functions that hold this one."""
    if eqx.is_array(leaf):
        return leaf.shape, leaf.dtype
    code = getattr(leaf, "__code__", None)
    if code is None:
        return leaf
    if id(leaf) in within:  # a function that calls itself
        return code
    held, within = [cell.cell_contents for cell in leaf.__closure__ or ()], (*within, id(leaf))
    kinds = [id(c) if eqx.is_array(c) else _kind(c, within) for c in held]
    return code, kinds, leaf.__defaults__


def _same(a: Any, b: Any) -> bool:
    if a is b or not eqx.is_array(a):
        return True
    if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
        a, b = jax.random.key_data(a), jax.random.key_data(b)
    return np.array_equal(a, b)


def _elsewhere(make_problem: Any, points: list, solver: Any, key: Any, max_steps: Any) -> list:
    """One program, its problems stated where it runs."""
    (group,) = _groups([_stated(make_problem, point, key) for point in points])
    return _together([made for _, made in group], solver, key, max_steps)


def _together(made: list[Made], solver: AbstractSolver, key: Any, max_steps: Any) -> list[Ended]:
    """The runs of one program, of NumPy arrays."""
    first, tree = made[0]
    columns = list(zip(*(leaves for leaves, _ in made), strict=True))
    differ = [any(b is not a for b in column[1:]) for a, column in zip(first, columns, strict=True)]
    own = [jnp.stack(c) if d else None for c, d in zip(columns, differ, strict=True)]
    shared = [None if d else a for a, d in zip(first, differ, strict=True)]

    @eqx.filter_jit
    def all_of_them(own: list, shared: list, solver: AbstractSolver, key: Any) -> Ended:
        def one(mine: list) -> Ended:
            leaves = [b if a is None else a for a, b in zip(mine, shared, strict=True)]
            problem, start = jax.tree.unflatten(tree, leaves)
            return run(problem, solver, start, max_steps, key=key)

        return jax.vmap(one, axis_size=len(made))(own)

    with one_blas_thread():
        found = jax.device_get(all_of_them(own, shared, solver, key))
    return [jax.tree.map(lambda a, k=k: a[k], found) for k in range(len(made))]
