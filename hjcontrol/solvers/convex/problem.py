r"""A training problem that is convex, and what solving it gives.

    minimise F(c) over a convex set    >=    maximise D(v) over a convex set        gap = F(c) - D(v)

c     the variables in which training is convex (the candidate), any pytree
v     the multipliers; every feasible v bounds every F from below: the gap is the proof
map   c <-> weights of the network that a control problem trains; F(c) = J(weights)

A theorem says why the bound is tight, and for which variables: what it does not cover (slopes, gates,
a second layer) is not claimed to be global.
"""

import abc
import functools
import importlib
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree
from threadpoolctl import ThreadpoolController

from hjcontrol._ground.results import RESULTS
from hjcontrol.control import ControlProblem
from hjcontrol.layers.program import AbstractProgram
from hjcontrol.networks import Chain, Weights


class Theorem(NamedTuple):
    """Why an optimum is what it is claimed to be: `name`, `statement`, `limits` (what is not covered)."""

    name: str
    statement: str
    limits: str


class AbstractConvexProblem(AbstractProgram):
    """A convex training problem, and its own program for `certify(problem, candidate, dual)`."""

    @property
    @abc.abstractmethod
    def theorem(self) -> Theorem:
        """What makes a closed gap a proof."""

    @abc.abstractmethod
    def solve(self) -> "ConvexSolution":
        """Solve to a closed gap, on the host, in 64-bit floats."""

    @abc.abstractmethod
    def network(self, candidate: Any) -> tuple[Chain, Weights]:
        """The candidate as an ordinary network: `chain(weights, x)` for one sample."""

    @abc.abstractmethod
    def as_control_problem(self) -> ControlProblem:
        """The same problem as training: its `objective` is `F` under `to_weights`."""

    @abc.abstractmethod
    def to_weights(self, candidate: Any) -> Weights:
        """The candidate as weights of the control problem."""

    @abc.abstractmethod
    def from_weights(self, weights: Weights) -> Any:
        """Weights of the control problem as a candidate. Accepts weights from any training method."""


class ConvexSolution(eqx.Module):
    """A candidate with its multipliers, the gap between their values, and what the gap proves.

    `stats` has the keys `num_steps`, `solve_seconds` and whatever the problem adds.
    """

    problem: AbstractConvexProblem
    candidate: Any
    dual: PyTree[Array] | None
    objective: Float[Array, ""]
    dual_objective: Float[Array, ""]
    result: RESULTS
    stats: dict[str, Any]
    solver: str = eqx.field(static=True)

    @property
    def theorem(self) -> Theorem:
        """What the gap proves."""
        return self.problem.theorem

    @property
    def gap(self) -> Float[Array, ""]:
        """`F(c) - D(v)`: no point of the convex set is better by more."""
        return self.objective - self.dual_objective

    @property
    def relative_gap(self) -> Float[Array, ""]:
        """The gap over `|F|`."""
        return self.gap / jnp.maximum(jnp.abs(self.objective), jnp.finfo(self.objective.dtype).tiny)

    @property
    def chain(self) -> Chain:
        """The network's stages."""
        return self.problem.network(self.candidate)[0]

    @property
    def weights(self) -> Weights:
        """The network's weights."""
        return self.problem.network(self.candidate)[1]

    def __call__(self, x: PyTree[Array]) -> PyTree[Array]:
        """The network at one sample: batch with `jax.vmap`."""
        chain, weights = self.problem.network(self.candidate)
        return chain(weights, x)

    def __str__(self) -> str:
        chain, weights = self.problem.network(self.candidate)
        size = sum(a.size for a in jax.tree.leaves(weights))
        lines = [
            f"Convex solution by {self.solver}",
            f"  problem       {type(self.problem).__name__}",
            f"  network       {len(chain)} stages, {size} weights",
            f"  objective     {float(self.objective):.12g}",
            f"  bound below   {float(self.dual_objective):.12g}",
            f"  gap           {float(self.gap):.2e}   (relative {float(self.relative_gap):.2e})",
            f"  steps         {self.stats['num_steps']}   in {self.stats['solve_seconds']:.3g} s",
            f"  result        {RESULTS[self.result] or 'successful'}",
            f"  theorem       {self.theorem.name}",
            f"                {self.theorem.statement}",
            f"                Not covered: {self.theorem.limits}",
        ]
        return "\n".join(lines)

    __repr__ = __str__


def solution(
    problem: AbstractConvexProblem,
    candidate: Any,
    dual: Any,
    values: tuple[float, float],
    *,
    dtype: Any,
    tol: float,
    seconds: float,
    steps: int,
    solver: str,
    finished: bool = True,
    floor: float = 0.0,
    **stats: Any,
) -> ConvexSolution:
    """Hand back what the host found, in the problem's dtype. `values`: objective and bound below.

    The result is successful where the gap is within `tol`, relative, or within `floor`, the roundoff of
    the values; `stagnated` where the method had no more to give; and else the step limit's.
    """
    cast = lambda tree: jax.tree.map(lambda a: jnp.asarray(np.asarray(a), dtype), tree)
    primal, bound = values
    within = primal - bound <= max(tol * max(abs(primal), abs(bound)), floor)
    if not np.isfinite(primal):
        result = RESULTS.nonfinite
    elif within:
        result = RESULTS.successful
    else:
        result = RESULTS.stagnated if finished else RESULTS.max_steps_reached
    return ConvexSolution(
        problem,
        cast(candidate),
        cast(dual),
        jnp.asarray(primal, dtype),
        jnp.asarray(bound, dtype),
        result,
        {"num_steps": steps, "solve_seconds": seconds, **stats},
        solver,
    )


def one_blas_thread() -> AbstractContextManager:
    """Hold NumPy's and SciPy's BLAS to one thread: more threads only slow solves of these sizes."""
    return _blas().limit(limits=1, user_api="blas")


@functools.cache
def _blas() -> ThreadpoolController:
    importlib.import_module("scipy.linalg")  # its BLAS is to be found, too
    return ThreadpoolController()  # looks through every loaded library: 3 ms, once


def host(x: Any) -> np.ndarray:
    """An array on the host, in 64-bit floats."""
    return np.asarray(x, float)


def checked_samples(
    who: str, inputs: Any, targets: Any, *, scalar: bool = True
) -> tuple[Array, Array]:
    """Inputs `(n, d)` and targets `(n,)` as floating arrays of one dtype.

    **Raises:** `ValueError` for other shapes, no samples, or values that are not finite.
    """
    inputs = jnp.asarray(inputs)
    if not jnp.issubdtype(inputs.dtype, jnp.floating):
        inputs = inputs.astype(jnp.result_type(float))
    targets = jnp.asarray(targets)
    if scalar:
        targets = targets.astype(inputs.dtype)
    if inputs.ndim != 2 or targets.shape != inputs.shape[:1] or inputs.size == 0:
        raise ValueError(
            f"{who}: `inputs` of shape (n, d) and `targets` of shape (n,) are needed, neither "
            f"empty; found {inputs.shape} and {targets.shape}."
        )
    for name, a in (("inputs", inputs), ("targets", targets)):
        bad = np.argwhere(~np.isfinite(np.asarray(a)))
        if len(bad):
            raise ValueError(
                f"{who}: `{name}` must be finite; {len(bad)} entries are not, the first at "
                f"{tuple(map(int, bad[0]))}. Fill in or drop them."
            )
    return inputs, targets
