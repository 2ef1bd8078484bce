r"""Any parametrised convex program of the user's as a layer: linear, quadratic, second-order,
exponential, power and semidefinite cones.

    x(theta) = argmin  x.P x/2 + q(theta).x    s.t.   b(theta) - A(theta) x  in  K

The cvxpy problem must be DPP: then every array above is affine in theta, and the maps are read once. The
answer of whichever engine is polished and differentiated through one linear system: see `conic`.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from hjcontrol._ground.annotations import shown
from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known
from hjcontrol._ground.renamed import renamed
from hjcontrol._ground.results import RESULTS, name_of
from hjcontrol._ground.shown import Shown
from hjcontrol.deformation.soft_maximum import floating
from hjcontrol.layers.certifying import Optimality, certify
from hjcontrol.layers.conic.cones import WORDS
from hjcontrol.layers.conic.optimum import ENGINES, Data, Point, optimum
from hjcontrol.layers.conic.program import ConicProgram
from hjcontrol.layers.conic.reading import Reading, read
from hjcontrol.layers.conic.refusals import check_dpp, checked_parameter


class ProgramSolution(Shown):
    """Values of the user's variables by name, the point with its multipliers, and the outcome.

    `proof` says why there is no optimum: of infeasibility, multipliers by kind of cone (Farkas), of
    unboundedness a direction by variable. All zero where there is an optimum.
    """

    variables: dict[str, Float[Array, "..."]]
    point: Point
    result: RESULTS
    proof: dict[str, Float[Array, "..."]]


@admits()
class ProgramLayer(Shown):
    """`ProgramLayer(problem)`: call it with the values of `problem.parameters()`, in that order.

    Differentiable wherever the optimum is unique and strictly complementary; at a vertex of a linear
    program the derivative in the costs is 0: the optimum stays at its vertex. Where the program leaves
    a variable undecided, `solve` says `not_unique`, and the derivative is that of the entries decided.

    `engine` is `interior` (JAX: equalities and inequalities), `clarabel` (every cone, on the host) or
    `auto`, the first that can. All answers are polished to roundoff by the same steps.

    **Example:**

        >>> import cvxpy as cp, jax.numpy as jnp, hjcontrol as hj
        >>> x, c = cp.Variable(2, name="x"), cp.Parameter(2, name="c")
        >>> layer = hj.layers.ProgramLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [x >= 0]))
        >>> print(layer(jnp.array([1.0, -1.0]))["x"].round(6))
        [1. 0.]
    """

    held: ClassVar[tuple[str, ...]] = ("reading",)  # the program's own numbers
    problem: Any = eqx.field(static=True)
    reading: Reading
    engine: str = eqx.field(static=True)

    def __init__(self, problem: Any, engine: str = "auto"):
        """**Raises:** `ValueError` if the problem is not convex or not DPP, naming the sub-expression; if
        it has integer variables, a cone that is not known, or two variables of one name."""
        if not hasattr(problem, "get_problem_data") or isinstance(problem, type):
            raise ValueError(
                f"ProgramLayer: `problem` must be a cvxpy.Problem; found {shown(problem)}."
            )
        if engine not in ENGINES:
            raise ValueError(
                f"ProgramLayer: `engine` must be one of {', '.join(ENGINES)}; found {engine!r}."
            )
        check_dpp(problem)
        self.problem = problem
        self.engine = engine
        self.reading = read(problem)

    def program(self, *parameters: Real[ArrayLike, "..."]) -> ConicProgram:
        """The cone program at these parameters, for `certify`; objectives are up to a constant."""
        data = _data(self.reading, self._checked(parameters))
        return ConicProgram(data.P, data.q, data.A, data.b, self.reading.cones)

    def solve(
        self, *parameters: Real[ArrayLike, "..."], start: Point | None = None
    ) -> ProgramSolution:
        """The optimum, and how it was reached. Never raises on the optimum: read `result`. `start` is
        the `point` of a solution nearby: the interior point starts there.

        **Raises:** `ValueError` for parameters that are missing, of the wrong shape or sign, or NaN.
        """
        given = self._checked(parameters)
        dtypes = [floating(v).dtype for v in given]
        dtype = jnp.result_type(*dtypes) if dtypes else jnp.result_type(float)
        point = optimum(_data(self.reading, given), self.reading.cones, self.engine, start)
        return _named(self.reading, point, dtype)

    def __call__(self, *parameters: Real[ArrayLike, "..."]) -> dict[str, Float[Array, "..."]]:
        """The optimal values of the user's variables, by name.

        **Raises:** `ValueError` with the outcome's message and the cones of its proof if there is no
        optimum; under `jit` a runtime error with the message.
        """
        found = self.solve(*parameters)
        bad = (found.result != RESULTS.successful) & (found.result != RESULTS.not_unique)
        if known(bad) is not None and np.any(np.asarray(bad)):
            raise ValueError(_words(found))
        return found.result.error_if(found.variables, bad)

    @renamed(tolerance="tol")
    def certify(
        self,
        *parameters: Real[ArrayLike, "..."],
        tol: Real[ArrayLike, ""] | float | None = None,
    ) -> Optimality:
        """Certificate of the layer's own answer, from its own multipliers."""
        program = self.program(*parameters)
        point = program.solve(self.engine)  # in the program's own precision, which judges
        return certify(program, point.x, point, tol=tol)

    def as_cvxpy(self, *parameters: Real[ArrayLike, "..."]) -> Any:
        """The user's own problem, with its parameters set."""
        self._checked(parameters)
        for parameter, value in zip(self.problem.parameters(), parameters, strict=True):
            parameter.value = np.asarray(value, float)
        return self.problem

    def _checked(self, parameters: tuple) -> tuple:
        own = self.problem.parameters()
        if len(parameters) != len(own):
            names = ", ".join(p.name() for p in own)
            raise ValueError(
                f"ProgramLayer: {len(own)} parameters are needed ({names}); found {len(parameters)}."
            )
        return tuple(checked_parameter(p, v) for p, v in zip(own, parameters, strict=True))


@eqx.filter_jit
def _data(reading: Reading, parameters: tuple) -> Data:
    """The arrays, in the widest float there is: answers are cast back."""
    wide = jnp.result_type(float)
    flat = [floating(v).astype(wide).ravel() for v in parameters]
    return reading.data(jnp.concatenate([*flat, jnp.ones(1, wide)]))


@eqx.filter_jit
def _named(reading: Reading, point: Point, dtype: Any) -> ProgramSolution:
    found = jnp.asarray(point.converged)
    loose = jnp.any(jnp.asarray(point.loose) & reading.named())
    result = RESULTS.where(point.unbounded, RESULTS.unbounded, RESULTS.not_converged)
    result = RESULTS.where(point.infeasible, RESULTS.infeasible, result)
    result = RESULTS.where(found & loose, RESULTS.not_unique, result)
    result = RESULTS.where(found & ~loose, RESULTS.successful, result)
    cast = lambda v: v.astype(dtype) if jnp.issubdtype(v.dtype, jnp.floating) else v
    point = jax.tree.map(cast, point)
    n = reading.n
    proof: dict[str, Array] = {}
    for (kind, _, _), block in zip(
        reading.cones.groups(), reading.cones.cut(point.proof[n:]), strict=True
    ):
        name = WORDS[kind]
        flat = block.ravel()
        proof[name] = jnp.concatenate([proof[name], flat]) if name in proof else flat
    way = {f"direction of {k}": v for k, v in reading.variables(point.proof[:n]).items()}
    return ProgramSolution(reading.variables(point.x), point, result, proof | way)


def _words(found: ProgramSolution) -> str:
    """What is to be said of a program without optimum."""
    name = name_of(found.result)
    text = "ProgramLayer: " + " ".join(str(RESULTS[found.result]).split())
    if found.result.is_traced() or np.ndim(found.point.measure):
        return text
    part = {k: float(np.max(np.abs(v))) for k, v in found.proof.items() if np.size(v)}
    if name == "infeasible":
        text = (
            "ProgramLayer: No point that meets the constraints exists at these parameters. Check their "
            "signs, or relax a constraint with a penalised slack."
        )
        cones = [k for k, v in part.items() if v > 1e-6 and not k.startswith("direction")]
        text += f" The proof (Farkas) uses the constraints of these kinds: {', '.join(cones)}."
    if name == "unbounded":
        ways = [k for k, v in part.items() if v > 1e-6 and k.startswith("direction")]
        text += f" It falls along the {', '.join(ways)}: see `solve(..).proof`."
    if name == "not_converged":
        text += f" The worst measure is {float(found.point.measure):.1e}."
    return text
