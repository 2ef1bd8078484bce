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
import math
from contextlib import AbstractContextManager
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from hjcontrol._ground.results import RESULTS
from hjcontrol._ground.shown import Shown
from hjcontrol._ground.third_party import needs
from hjcontrol.control import ControlProblem, History, Solution, Theorem
from hjcontrol.control.solution import stats_of
from hjcontrol.layers.program import AbstractProgram
from hjcontrol.networks import Chain, Weights


class AbstractConvexProblem(AbstractProgram):
    """A convex training problem, and its own program for `certify(problem, candidate, dual)`."""

    theorem: eqx.AbstractClassVar[Theorem]  # what makes a closed gap a proof

    @abc.abstractmethod
    def solve(self) -> Solution:
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


class AbstractPrimalDual(Shown):
    """The answer in the convex problem's own variables: `solution.native`."""

    problem: eqx.AbstractVar[Any]
    candidate: eqx.AbstractVar[Any]
    dual: eqx.AbstractVar[Any]

    @property
    def chain(self) -> Chain:
        """The stages of the ordinary network that the candidate is."""
        return self.problem.network(self.candidate)[0]

    @property
    def weights(self) -> Weights:
        """That network's weights."""
        return self.problem.network(self.candidate)[1]

    def __call__(self, x: PyTree[Array]) -> PyTree[Array]:
        """The network at one sample: batch with `jax.vmap`."""
        chain, weights = self.problem.network(self.candidate)
        return chain(weights, x)


class PrimalDual(AbstractPrimalDual):
    """A candidate and the multipliers that bound every other one."""

    problem: AbstractConvexProblem
    candidate: Any
    dual: Any


def answer(
    native: AbstractPrimalDual,
    objective: Float[Array, ""],
    bound: Float[Array, ""],
    result: RESULTS,
    **told: Any,
) -> Solution:
    """The `Solution` of a primal-dual pair, stated as training. `told`: as for `plain_answer`."""
    problem, proof = native.problem, (bound, native.problem.theorem, native)
    weights = problem.to_weights(native.candidate)
    stated = problem.as_control_problem()
    return plain_answer(stated, weights, objective, result, proof=proof, **told)


def plain_answer(
    problem: ControlProblem,
    weights: Weights,
    objective: Float[Array, ""],
    result: RESULTS,
    *,
    seconds: float,
    steps: int,
    solver: str,
    stationarity: float = math.nan,
    history: np.ndarray | None = None,
    proof: tuple[Any, Theorem | None, Any] = (None, None, None),
    **stats: Any,
) -> Solution:
    """A `Solution` found on the host; states and costates are computed when they are asked for.
    `history`: objective after each step."""
    values = np.asarray([float(objective)] if history is None else history, float)
    rest = np.full(len(values), math.nan)
    rest[-1] = stationarity
    times = np.linspace(0.0 if len(values) > 1 else seconds, seconds, len(values))
    bound, theorem, native = proof
    return Solution(
        weights,
        None,
        None,
        objective,
        result,
        stats_of(steps, steps, objective, stationarity, 0.0, seconds) | stats,
        History(times, values, rest),
        problem,
        solver,
        bound=bound,
        theorem=theorem,
        native=native,
    )


def solution(
    native: PrimalDual,
    values: tuple[float, float],
    *,
    dtype: Any,
    tol: float,
    finished: bool = True,
    floor: float = 0.0,
    **stats: Any,
) -> Solution:
    """Hand back what the host found, in the problem's dtype. `values`: objective and bound below.

    The result is successful where the gap is within `tol`, relative, or within `floor`, the roundoff of
    the values; `stagnated` where the method had no more to give; and else the step limit's.
    """
    primal, bound = values
    within = primal - bound <= max(tol * max(abs(primal), abs(bound)), floor)
    if not np.isfinite(primal):
        result = RESULTS.nonfinite
    elif within:
        result = RESULTS.successful
    else:
        result = RESULTS.stagnated if finished else RESULTS.max_steps_reached
    cast = lambda tree: jax.tree.map(lambda a: jnp.asarray(np.asarray(a), dtype), tree)
    pair = eqx.tree_at(
        lambda n: (n.candidate, n.dual), native, (cast(native.candidate), cast(native.dual))
    )
    return answer(pair, jnp.asarray(primal, dtype), jnp.asarray(bound, dtype), result, **stats)


def one_blas_thread() -> AbstractContextManager:
    """Hold NumPy's and SciPy's BLAS to one thread: more threads only slow solves of these sizes."""
    return _blas().limit(limits=1, user_api="blas")


@functools.cache
def _blas() -> Any:
    needs("A convex problem", "threadpoolctl")
    import threadpoolctl

    importlib.import_module("scipy.linalg")  # its BLAS is to be found, too
    return threadpoolctl.ThreadpoolController()  # looks through every loaded library: 3 ms, once


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
