r"""A cvxpy problem read once: sparse maps from the parameters to the data of the cone program.

    minimise  x.P x/2 + q.x    s.t.   A x + s = b,  s in K          each of P, q, A, b affine in theta

cvxpy builds these maps itself; every version names and orders them a little differently, and replaces
parameters and variables that have attributes by shorter ones. No name or number of cvxpy's is followed:
the parameters are *tagged* with 1, 2, 3, .. and the compiled ones are read; the columns are tagged and
sent back through cvxpy's own inversion. A second vector, drawn at random, checks the reading.
"""

import functools
import warnings
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Float, Int

from hjcontrol._ground.shown import Shown
from hjcontrol._ground.third_party import needs
from hjcontrol.layers.conic.cones import Cones
from hjcontrol.layers.conic.optimum import Data


class Table(Shown):
    """A sparse map from `(parameters, 1)`: entry `at[k]` is the sum of `by[k] * theta[of[k]]`."""

    at: Int[Array, " k"]
    of: Int[Array, " k"]
    by: Float[Array, " k"]

    def __call__(self, theta: Float[Array, " N"], size: int) -> Float[Array, " size"]:
        return (
            jnp.zeros(size, theta.dtype)
            .at[self.at]
            .add(self.by.astype(theta.dtype) * theta[self.of])
        )


class Place(NamedTuple):
    """Where a variable of the user's lies: its entries are `factor * x[column]`, in row-major order."""

    name: str
    shape: tuple[int, ...]
    columns: tuple[int, ...]
    factors: tuple[float, ...]


class Reading(Shown):
    """What is read from a problem, `theta` being all parameters in row-major order, then 1."""

    P: Table
    q: Table
    A: Table
    b: Table
    n: int = eqx.field(static=True)
    cones: Cones
    places: tuple[Place, ...] = eqx.field(static=True)

    def data(self, theta: Float[Array, " N"]) -> Data:
        """The four arrays at these parameters."""
        n, m = self.n, self.cones.rows
        return Data(
            self.P(theta, n * n).reshape(n, n),
            self.q(theta, n),
            self.A(theta, m * n).reshape(m, n),
            self.b(theta, m),
        )

    def variables(self, x: Float[Array, " n"]) -> dict[str, Float[Array, "..."]]:
        """The user's variables in a point."""
        take = lambda p: jnp.asarray(p.factors, x.dtype) * x[np.asarray(p.columns, int)]
        return {p.name: take(p).reshape(p.shape) for p in self.places}

    def named(self) -> np.ndarray:
        """Which columns belong to a variable of the user's."""
        used = np.zeros(self.n, bool)
        for p in self.places:
            used[[c for c, f in zip(p.columns, p.factors, strict=True) if f]] = True
        return used


def read(problem: Any) -> Reading:
    """The maps of one problem, compiled once.

    **Raises:** `ValueError` for a cone that is not known, an integer or complex variable, or a problem
    that cvxpy cannot bring to cone form.
    """
    needs("ProgramLayer", "cvxpy")
    _refuse(problem)
    parameters = problem.parameters()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Reading from a sparse")  # nothing is kept of it
        return _read(problem, parameters)


def _read(problem: Any, parameters: list) -> Reading:
    import cvxpy as cp

    before = [p.value for p in parameters]
    try:
        start = 1
        for p in parameters:
            tags = np.arange(start, start + p.size, dtype=float).reshape(p.shape)
            p.save_value(tags)
            start += p.size
        try:
            data, chain, inverse = _compiled(problem)
        except (cp.error.SolverError, cp.error.DCPError, cp.error.ParameterError) as error:
            raise ValueError(
                "ProgramLayer: cvxpy finds no cone form of the problem. Its words: "
                f"{str(error).splitlines()[0]}"
            ) from error
        compiled = data["param_prob"]
        chosen = _selection(compiled, start - 1)
    finally:
        for p, value in zip(parameters, before, strict=True):
            p.save_value(value)
    cones = _cones(data["dims"])
    n = compiled.x.size
    linear: Any = getattr(compiled, "q", None)
    linear = _entries(compiled.c if linear is None else linear, chosen)
    stacked = _entries(compiled.A, chosen)
    rows = compiled.A.shape[0] // (n + 1)
    if rows != cones.rows:
        raise ValueError(
            f"ProgramLayer: cvxpy's cone form has {rows} rows, and its cones {cones.rows}: this version "
            "of cvxpy is not understood. Use one that the documentation lists."
        )
    at, of, by = stacked
    i, j = at % rows, at // rows
    last = j == n
    keep = linear[0] < n
    bent = (np.zeros(0),) * 3 if compiled.P is None else _entries(compiled.P, chosen)
    parts = (
        bent,
        tuple(v[keep] for v in linear),
        ((i * n + j)[~last], of[~last], -by[~last]),
        (i[last], of[last], by[last]),
    )
    whole = lambda v: np.asarray(v, np.int32)
    # All in one transfer: one by one they take a good part of the building.
    parts = jax.device_put([(whole(at), whole(of), by) for at, of, by in parts])
    P, q, A, b = (Table(*part) for part in parts)
    return Reading(P, q, A, b, n, cones, _places(problem, compiled, chain, inverse))


def _compiled(problem: Any) -> tuple[Any, Any, Any]:
    """The data with maps from the parameters. cvxpy puts the parameters' values in their stead where a
    `quad_form` of the objective is of an expression with a parameter: there it is written as squares."""
    import cvxpy as cp

    def of_squares() -> Any:
        objective = type(problem.objective)(_squares(problem.objective.args[0]))
        return cp.Problem(objective, problem.constraints)

    for stated in (lambda: problem, of_squares):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "[^a-z]*You are solving a parameterized")
            found = stated().get_problem_data(cp.CLARABEL)
        if all(type(step).__name__ != "EvalParams" for step in getattr(found[1], "reductions", ())):
            return found
    raise ValueError(
        "ProgramLayer: cvxpy compiles the problem for the parameters' present values only, which is no "
        "layer. Write `sum_squares(L.T @ y)` for `quad_form(y, P)`, where L L' is P."
    )


def _squares(expression: Any) -> Any:
    """The expression with `sum_squares(L.T @ y)` for each `quad_form(y, L L')` of a constant matrix."""
    import cvxpy as cp

    args = [_squares(e) for e in expression.args]
    if type(expression).__name__ == "QuadForm" and not expression.args[1].parameters():
        values, vectors = np.linalg.eigh(_dense(expression.args[1].value))
        sign = 1.0 if values[-1] > -values[0] else -1.0
        root = vectors * np.sqrt(np.maximum(sign * values, 0.0))
        return sign * cp.sum_squares(root.T @ args[0])
    same = all(new is old for new, old in zip(args, expression.args, strict=True))
    return expression if same else expression.copy(args)


def _refuse(problem: Any) -> None:
    if not problem.variables():
        raise ValueError("ProgramLayer: the problem has no variables; found nothing to solve for.")
    for v in problem.variables():
        if v.size == 0:
            raise ValueError(
                f"ProgramLayer: variable {v.name()} has no entries; found shape {v.shape}. Leave it out."
            )
        for kind in ("boolean", "integer", "complex", "imag", "hermitian"):
            on = v.attributes.get(kind)
            if on is not None and on is not False and np.size(on):
                raise ValueError(
                    f"ProgramLayer: variable {v.name()} is {kind}; a layer needs a convex program in "
                    "real numbers. Relax it to an interval, or split it into real and imaginary parts."
                )
    for p in problem.parameters():
        for kind in ("complex", "imag", "hermitian"):
            if p.attributes.get(kind):
                raise ValueError(
                    f"ProgramLayer: parameter {p.name()} is {kind}; only real parameters are understood. "
                    "Split it into two."
                )
    names = [v.name() for v in problem.variables()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"ProgramLayer: two variables have the name {twice[0]!r}, and answers go by name. Give each "
            "a name of its own: `cp.Variable(.., name=..)`."
        )


def _cones(dims: Any) -> Cones:
    wide = list(getattr(dims, "pnd", ()) or ())
    if wide:
        raise ValueError(
            f"ProgramLayer: the problem needs {len(wide)} power cones of more than three dimensions "
            "(PowConeND), which are not understood. State them by PowCone3D, or use `cp.geo_mean` with "
            "`approx=True`: cvxpy writes it with second-order cones."
        )
    whole = lambda sizes: tuple(int(d) for d in sizes)
    power = tuple(float(v) for v in getattr(dims, "p3d", ()))
    return Cones(
        int(dims.zero), int(dims.nonneg), whole(dims.soc), whole(dims.psd), int(dims.exp), power
    )


def _entries(tensor: Any, chosen: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, ...]:
    """Rows, the user's parameters, and factors of a map from the compiled parameters."""
    of, sign = chosen
    entries: Any = sp.coo_array(tensor)
    kept = sign[entries.col] != 0
    column = entries.col[kept]
    return entries.row[kept], of[column], entries.data[kept] * sign[column]


def _selection(compiled: Any, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the compiled parameters, then 1: which of the user's each is, by its tag, and its sign, 0 for
    none."""
    total = compiled.total_param_size
    of, sign = np.zeros(total + 1, int), np.zeros(total + 1)
    of[total], sign[total] = size, 1.0
    for p in compiled.parameters:
        value = np.ravel(np.asarray(_dense(p.value), float), order="F")
        first = compiled.param_id_to_col[p.id]
        tags = np.abs(value)
        if np.any(tags != np.round(tags)) or np.any(tags > size):
            raise ValueError(
                f"ProgramLayer: cvxpy transforms parameter {p.name()} in a way that is not a choice of "
                "its entries. Use a parameter without attributes."
            )
        there = np.flatnonzero(tags)
        of[first + there] = tags[there] - 1
        sign[first + there] = np.sign(value[there])
    return of, sign


def _dense(value: Any) -> Any:
    return value.toarray() if hasattr(value, "toarray") else value


class _AnyShape(np.ndarray):
    """Zeros that take any shape."""

    def reshape(self, *shape: Any, **_: Any) -> np.ndarray:
        return np.zeros(shape[0] if len(shape) == 1 else shape).view(_AnyShape)


class _AnyDual(dict):
    """Versions of cvxpy up to 1.8 look up duals of every constraint on the way back."""

    def __missing__(self, key: Any) -> np.ndarray:
        return np.zeros(1).view(_AnyShape)

    def __contains__(self, key: Any) -> bool:
        return True


def _places(problem: Any, compiled: Any, chain: Any, inverse: Any) -> tuple[Place, ...]:
    n = compiled.x.size
    noise = np.random.default_rng(0).uniform(1.0, 2.0, n)
    back = lambda x: _back(problem, compiled, chain, inverse, x)
    tags = np.arange(1.0, n + 1)
    sent = functools.cache(lambda sign: (back(sign * tags), back(sign * noise)))
    found = []
    for v in problem.variables():
        if v.id not in sent(1)[0]:
            raise ValueError(
                f"ProgramLayer: variable {v.name()} is not found in cvxpy's cone form. State its "
                "attributes as constraints."
            )
        read = lambda values, v=v: np.ravel(np.asarray(_dense(values[v.id]), float))
        # A sign attribute clips what is sent back: where nothing arrives, the other sign is sent.
        sign = 1 if np.any(read(sent(1)[0])) or not np.any(read(sent(-1)[0])) else -1
        there = sign * read(sent(sign)[0])
        columns = np.round(np.abs(there)).astype(int) - 1
        factors = np.where(columns < 0, 0.0, np.sign(there))
        columns = np.maximum(columns, 0)
        if not np.allclose(factors * sign * noise[columns], read(sent(sign)[1]), 1e-12, 0.0):
            raise ValueError(
                f"ProgramLayer: cvxpy transforms variable {v.name()} in a way that is not a choice of "
                "entries. Use a variable without attributes, and constraints in their stead."
            )
        found.append(Place(v.name(), v.shape, tuple(map(int, columns)), tuple(map(float, factors))))
    return tuple(found)


def _back(problem: Any, compiled: Any, chain: Any, inverse: Any, x: np.ndarray) -> dict[int, Any]:
    from cvxpy.reductions.solution import Solution

    # Bounds, which would clip what is sent back, are opened for the time.
    bounded = [(v, v.bounds) for v in problem.variables() if getattr(v, "bounds", None) is not None]
    for v, _ in bounded:
        v.bounds = [-np.inf, np.inf]
    try:
        solution = Solution("optimal", 0.0, {compiled.x.id: x}, {}, {})
        return _inverted(chain, inverse, solution)
    except (KeyError, TypeError, AttributeError):
        solution = Solution("optimal", 0.0, {compiled.x.id: x}, _AnyDual(), {})
        return _inverted(chain, inverse, solution)
    finally:
        for v, bounds in bounded:
            v.bounds = bounds


def _inverted(chain: Any, inverse: Any, solution: Any) -> dict[int, Any]:
    steps = list(zip(chain.reductions, inverse, strict=True))
    for reduction, data in reversed(steps[:-1]):
        solution = reduction.invert(solution, data)
    return solution.primal_vars
