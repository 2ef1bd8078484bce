r"""The jury: several solutions of one problem, before one witness.

    gap_ab = |J_a - J_b|          distance_ab = min over relabellings |theta_a - g(theta_b)| / |theta_a|

Each solution is first judged as it came (costates by independent routes), then polished to its own
stationary point by a solver that the caller names. Two solutions are *the same* when their polished
weights agree up to permutation and sign of hidden units. Different stationary points of a nonconvex
problem are no contradiction; a costate that its own witness refutes is.
"""

from typing import Any

import jax
import numpy as np

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.record import Quantity, Record, Told
from hjcontrol.comparison.symmetry import match, relabel, relabel_states
from hjcontrol.control import ControlProblem, Solution
from hjcontrol.solvers import solve
from hjcontrol.solvers.solver import AbstractSolver
from hjcontrol.verification import Certificate, verify
from hjcontrol.verification.verdicts import worst_of

SAME = (
    1e-5  # relative distance of polished weights: stationarity over smallest curvature, with room
)


class Comparison(Told):
    """What `crosscheck` found. `names` label the rows and columns of every matrix.

    - `objective_gap`: `|J_a - J_b|` as solved; `polished_gap` after polishing.
    - `weight_distance`: relative distance of polished weights after the best relabelling.
    - `costate_distance`: the same for the costates at the polished points.
    - `same`: pairs of names that are one solution.
    - `certificates`: the witness on each solution as it came.

    **Example:**

        >>> import jax, jax.numpy as jnp, hjcontrol as hj
        >>> problem = hj.control.linear_quadratic(
        ...     jnp.eye(2)[None], jnp.eye(2)[None], jnp.ones((1, 2)), jnp.zeros((1, 2)), ridge=0.1
        ... )
        >>> solution = hj.solve(problem, "newton", key=jax.random.key(0))
        >>> comparison = hj.crosscheck(problem, solution, solution)
        >>> comparison.names, float(comparison.objective_gap.max())
        (['newton', 'newton 2'], 0.0)
    """

    def __init__(
        self,
        names: list[str],
        objective: np.ndarray,
        polished: list[Solution],
        weight_distance: np.ndarray,
        costate_distance: np.ndarray,
        certificates: list[Certificate],
    ):
        self.names = names
        self.objective = objective
        self.objective_gap = np.abs(objective[:, None] - objective[None, :])
        self.polished = polished
        after = np.asarray([float(s.objective) for s in polished])
        self.polished_gap = np.abs(after[:, None] - after[None, :])
        self.weight_distance = weight_distance
        self.costate_distance = costate_distance
        self.certificates = certificates
        self.same = [
            (names[i], names[j])
            for i in range(len(names))
            for j in range(i + 1, len(names))
            if weight_distance[i, j] <= SAME
        ]

    @property
    def verdict(self) -> str:
        """The worst verdict of the certificates."""
        return worst_of(c.verdict for c in self.certificates)

    def _said(self) -> str:
        same, pairs = len(self.same), len(self.names) * (len(self.names) - 1) // 2
        if same in (0, pairs):
            return "the same solution" if same else "different stationary points"
        return f"{same} of {pairs} pairs are the same solution"

    def as_record(self) -> Record:
        """What this result says of itself."""
        return _record(self)


def _record(comparison: Comparison) -> Record:
    solvers = [
        {
            "solver": name,
            "objective": Quantity(float(j), 14),
            "polished to": Quantity(s.stats["stationarity"], 2),
            "costates": c.verdict,
        }
        for name, j, s, c in zip(
            comparison.names,
            comparison.objective,
            comparison.polished,
            comparison.certificates,
            strict=True,
        )
    ]
    pairs = [
        {
            "pair": f"{a} | {comparison.names[k]}",
            "kind": "the same solution"
            if (a, comparison.names[k]) in comparison.same
            else "different stationary points",
            "objective": Quantity(float(comparison.polished_gap[i, k]), 2),
            "weights": Quantity(float(comparison.weight_distance[i, k]), 2),
            "costates": Quantity(float(comparison.costate_distance[i, k]), 2),
        }
        for i, a in enumerate(comparison.names)
        for k in range(i + 1, len(comparison.names))
    ]
    tone = {"exact": "good", "refuted": "bad"}.get(comparison.verdict, "partial")
    return Record(
        f"Crosscheck of {len(comparison.names)} solutions",
        f"{comparison._said()}; costates {comparison.verdict}",
        verdict=comparison.verdict,
        tone=tone,
        rows={"solvers": solvers, "gaps after polishing": pairs},
    )


@admits()
def crosscheck(
    problem: ControlProblem,
    *solutions: Solution,
    polish: AbstractSolver | None = None,
    certificates: list[Certificate] | None = None,
    progress: Any = None,
) -> Comparison:
    """Compare solutions of one problem.

    **Arguments:**

    - `solutions`: two or more, by any solvers.
    - `polish`: the solver that takes each to its stationary point; without it,
      `Newton(tol=1e-12, switch=1.0)`.
    - `certificates`: of each solution, if they are at hand; otherwise `verify` is called.
    - `progress`: as for `solve`, for the polishing.

    **Raises:** `ValueError` for fewer than two solutions, or weights of another problem.

    **Example:**

        >>> import jax, jax.numpy as jnp, hjcontrol as hj
        >>> x = jnp.array([[1.0], [-0.5]])
        >>> stages = [hj.networks.Residual(hj.networks.Dense(1, 1), 0.5)] * 3
        >>> problem = hj.ControlProblem(
        ...     stages, x, jnp.sin(x), terminal=hj.least_squares, running=hj.Ridge(0.1)
        ... )
        >>> start = problem.init(jax.random.key(0))
        >>> pair = [hj.solve(problem, name, init=start) for name in ("newton", "gradient")]
        >>> comparison = hj.crosscheck(problem, *pair)
        >>> [c.verdict for c in comparison.certificates]
        ['exact', 'exact']
    """
    if len(solutions) < 2:
        raise ValueError(f"crosscheck: two solutions or more are needed; found {len(solutions)}.")
    shapes = jax.tree.map(np.shape, solutions[0].weights)
    for s in solutions:
        if jax.tree.map(np.shape, s.weights) != shapes:
            raise ValueError(
                f"crosscheck: the solution by {s.solver} has weights of other shapes than that by "
                f"{solutions[0].solver}; solve the same problem with both."
            )
    if polish is None:
        from hjcontrol.solvers.newton import Newton

        polish = Newton(tol=1e-12, switch=1.0)  # it is near: no cheap steps
    if certificates is None:
        certificates = [verify(problem, s.weights, multipliers=s.multipliers) for s in solutions]
    polished = [solve(problem, polish, init=s, progress=progress) for s in solutions]
    count = len(solutions)
    weights, costates = np.zeros((count, count)), np.zeros((count, count))
    for i in range(count):
        for k in range(i + 1, count):
            pair = _distances(problem, polished[i], polished[k])
            weights[i, k], costates[i, k] = weights[k, i], costates[k, i] = pair
    names = _unique([s.solver for s in solutions])
    objectives = np.asarray([float(s.objective) for s in solutions])
    return Comparison(names, objectives, polished, weights, costates, certificates)


def _distances(problem: ControlProblem, a: Solution, b: Solution) -> tuple[float, float]:
    labels = match(problem, a.trajectory, b.trajectory)
    moved = relabel(problem.chain, b.weights, labels)
    theta = _relative(jax.tree.leaves(a.weights), jax.tree.leaves(moved))
    p = [np.asarray(a.costate[k]) for k in range(len(a.costate))]
    return theta, _relative(p, relabel_states(b.costate, labels))


def _relative(a: list, b: list) -> float:
    square = lambda leaves: sum(float(np.sum(np.asarray(leaf) ** 2)) for leaf in leaves)
    gap = square([np.asarray(u) - np.asarray(v) for u, v in zip(a, b, strict=True)])
    return float(np.sqrt(gap / max(square(a), np.finfo(float).tiny)))


def _unique(names: list[str]) -> list[str]:
    seen: dict[str, int] = {}
    out = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name} {seen[name]}")
    return out
