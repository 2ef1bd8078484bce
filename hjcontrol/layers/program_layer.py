r"""Any parametrised linear or quadratic program of the user's as a layer.

    x(theta) = argmin  x.P x/2 + q(theta).x    s.t.  A(theta) x = b(theta),  F(theta) x <= G(theta)

The cvxpy problem must be DPP: then every matrix above is affine in theta, and is read off once. After
that the layer is pure JAX: jit, vmap, forward and reverse mode, no call back into Python.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from hjcontrol._ground.annotations import shown
from hjcontrol._ground.arguments import admits
from hjcontrol._ground.renamed import renamed
from hjcontrol._ground.results import RESULTS
from hjcontrol._ground.shown import Shown
from hjcontrol._ground.third_party import needs
from hjcontrol.deformation.soft_maximum import floating
from hjcontrol.layers.certifying import Optimality, certify
from hjcontrol.layers.quadratic import Point, QuadraticProgram, solve


class ProgramSolution(Shown):
    """Values of the user's variables by name, multipliers, and the outcome."""

    variables: dict[str, Float[Array, "..."]]
    point: Point
    result: RESULTS


@admits()
class ProgramLayer(Shown):
    """`ProgramLayer(problem)`: call it with the values of `problem.parameters()`, in that order.

    Differentiable wherever the optimum is unique and strictly complementary; at a vertex of a linear
    program the derivative in the costs is 0: the optimum stays at its vertex.

    **Example:**

        >>> import cvxpy as cp, jax.numpy as jnp, hjcontrol as hj
        >>> x, c = cp.Variable(2, name="x"), cp.Parameter(2, name="c")
        >>> layer = hj.layers.ProgramLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [x >= 0]))
        >>> print(layer(jnp.array([1.0, -1.0]))["x"].round(6))
        [1. 0.]
    """

    held: ClassVar[tuple[str, ...]] = ("tables",)  # the program's own numbers
    problem: Any = eqx.field(static=True)
    tables: tuple[tuple[Float[Array, "..."], Float[Array, "..."]], ...]
    shapes: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    places: tuple[tuple[str, int, tuple[int, ...]], ...] = eqx.field(static=True)

    def __init__(self, problem: Any):
        """**Raises:** `ValueError` if the problem is not DPP, naming the sub-expression; if it has no
        linear or quadratic form; or if a variable or parameter has an attribute that cannot be kept."""
        if not hasattr(problem, "parameters") or isinstance(problem, type):
            raise ValueError(
                f"ProgramLayer: `problem` must be a cvxpy.Problem; found {shown(problem)}."
            )
        check_dpp(problem)
        self.problem = problem
        self.shapes = tuple(p.shape for p in problem.parameters())
        self.tables, self.places = _affine_maps(problem)

    def program(self, *parameters: Real[ArrayLike, "..."]) -> QuadraticProgram:
        """The program at these parameters, for `certify`; objectives are up to a constant."""
        if len(parameters) != len(self.shapes):
            raise ValueError(
                f"ProgramLayer: {len(self.shapes)} parameters are needed; found {len(parameters)}."
            )
        flat = []
        for parameter, shape, value in zip(
            self.problem.parameters(), self.shapes, parameters, strict=True
        ):
            if jnp.shape(value) != shape:
                raise ValueError(
                    f"ProgramLayer: parameter {parameter.name()} has shape {shape}; found "
                    f"{jnp.shape(value)}. Batch with `jax.vmap`."
                )
            flat.append(floating(value).ravel())
        theta = jnp.concatenate([*flat, jnp.zeros(0)])
        made = [base + jnp.tensordot(theta, slope, 1) for base, slope in self.tables]
        return QuadraticProgram(*made)

    def solve(self, *parameters: Real[ArrayLike, "..."]) -> ProgramSolution:
        """The optimum, and how it was reached. Never raises on values: read `result`."""
        point = solve(self.program(*parameters))
        values = {
            name: point.x[start : start + int(np.prod(shape))].reshape(shape[::-1]).T
            for name, start, shape in self.places
        }
        codes = [RESULTS.infeasible, RESULTS.unbounded, RESULTS.not_converged]
        result = RESULTS.where(point.unbounded, codes[1], codes[2])
        result = RESULTS.where(point.infeasible, codes[0], result)
        result = RESULTS.where(point.converged, RESULTS.successful, result)
        return ProgramSolution(values, point, result)

    def __call__(self, *parameters: Real[ArrayLike, "..."]) -> dict[str, Float[Array, "..."]]:
        """The optimal values of the user's variables, by name.

        **Raises:** a runtime error with the outcome's message if there is no optimum.
        """
        found = self.solve(*parameters)
        return found.result.error_if(found.variables, found.result != RESULTS.successful)

    @renamed(tolerance="tol")
    def certify(
        self,
        *parameters: Real[ArrayLike, "..."],
        tol: Real[ArrayLike, ""] | float | None = None,
    ) -> Optimality:
        """Certificate of the layer's own answer, from its own multipliers."""
        point = solve(self.program(*parameters))
        dual = {"equality": point.nu, "inequality": point.lam}
        return certify(self.program(*parameters), point.x, dual, tol=tol)

    def as_cvxpy(self, *parameters: Real[ArrayLike, "..."]) -> Any:
        """The user's own problem, with its parameters set."""
        for parameter, value in zip(self.problem.parameters(), parameters, strict=True):
            parameter.value = np.asarray(value, float)
        return self.problem


def check_dpp(problem: Any) -> None:
    """Refuse a problem that is not DPP, pointing at the smallest sub-expression that is not.

    **Raises:** `ValueError` with that sub-expression and what to write instead.
    """
    if not problem.is_dcp():
        raise ValueError("ProgramLayer: the problem is not convex by cvxpy's rules (not DCP).")
    if problem.is_dpp():
        return
    parts = [problem.objective.args[0], *(a for c in problem.constraints for a in c.args)]
    guilty = next((e for e in map(_smallest, parts) if e is not None), problem.objective)
    raise ValueError(
        f"ProgramLayer: the problem is not DPP; the sub-expression at fault is `{guilty}`. A parameter "
        "may enter only affinely, and never multiply another parameter: give the product a parameter of "
        "its own, write `quad_form(x, P)` as `sum_squares(L.T @ x)`, and `x / p` as `q * x`."
    )


def _smallest(expression: Any) -> Any:
    """The first sub-expression that is not DPP while all of its own arguments are."""
    for child in getattr(expression, "args", ()):
        found = _smallest(child)
        if found is not None:
            return found
    return None if expression.is_dcp(dpp=True) else expression


def _affine_maps(problem: Any) -> tuple[tuple, tuple]:
    """Base and slopes of (P, q, A, b, F, G) in the parameters, and where each variable lies."""
    needs("ProgramLayer", "cvxpy")
    import cvxpy as cp

    parameters = problem.parameters()
    before = [p.value for p in parameters]
    signs = [_direction(p) for p in parameters]
    try:
        sizes = [p.size for p in parameters]
        ones = [s * np.ones(p.shape) for p, s in zip(parameters, signs, strict=True)]
        base = _matrices(problem, parameters, ones, cp)
        slopes = [[] for _ in base]
        for i, size in enumerate(sizes):
            for j in range(size):
                moved = [np.array(v, float) for v in ones]
                moved[i].ravel()[j : j + 1] += signs[i]
                if moved[i].ndim == 0:
                    moved[i] = np.asarray(2.0 * signs[i])
                for k, matrix in enumerate(_matrices(problem, parameters, moved, cp)):
                    slopes[k].append((matrix - base[k]) * signs[i])
    finally:
        for p, value in zip(parameters, before, strict=True):
            if value is not None:
                p.value = value
    center = np.concatenate([*(np.ravel(v) for v in ones), np.zeros(0)])
    tables = []
    for matrix, rows in zip(base, slopes, strict=True):
        slope = np.stack(rows) if rows else np.zeros((0, *matrix.shape))
        tables.append((jnp.asarray(matrix - np.tensordot(center, slope, 1)), jnp.asarray(slope)))
    return tuple(tables), _places(problem, cp)


def _direction(parameter: Any) -> float:
    bad = [
        k
        for k, on in parameter.attributes.items()
        if on is not None
        and on is not False
        and np.size(on)
        and k not in ("nonneg", "nonpos", "pos", "neg")
    ]
    if bad:
        raise ValueError(
            f"ProgramLayer: parameter {parameter.name()} has the attribute {bad[0]!r}; only signs can be "
            "kept. Use a plain parameter."
        )
    return -1.0 if parameter.attributes.get("nonpos") or parameter.attributes.get("neg") else 1.0


def _matrices(problem: Any, parameters: list, values: list, cp: Any) -> list[np.ndarray]:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.value = value
    try:
        data = problem.get_problem_data(cp.OSQP)[0]
    except cp.error.SolverError as error:
        raise ValueError(
            "ProgramLayer: the problem has no linear or quadratic form (cvxpy: "
            f"{str(error).splitlines()[0]}). Entropies have layers of their own: see `hj.layers.table()`."
        ) from error
    dense = lambda m: np.asarray(m.todense() if hasattr(m, "todense") else m, float)
    return [dense(data[k]) for k in ("P", "q", "A", "b", "F", "G")]


def _places(problem: Any, cp: Any) -> tuple[tuple[str, int, tuple[int, ...]], ...]:
    columns = problem.get_problem_data(cp.OSQP)[0][cp.settings.PARAM_PROB].var_id_to_col
    missing = [v.name() for v in problem.variables() if v.id not in columns]
    if missing:
        raise ValueError(
            f"ProgramLayer: variable {missing[0]} has an attribute (a sign, symmetry) that cvxpy "
            "replaces it for. State it as a constraint."
        )
    return tuple((v.name(), int(columns[v.id]), v.shape) for v in problem.variables())
