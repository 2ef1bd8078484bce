r"""Gradient descent in weight space, by any optax transformation.

    theta <- project(theta + update(dJ/dtheta))          dJ/dtheta_k = dH_k/dtheta

A transformation with a line search (`optax.lbfgs`) measures descent along unprojected steps. On a control
set its place is taken by spectral projected gradient steps (`spectral`), whose search stays in the set.

The transformation sees the weights of another library's model as that model has them (`by_layer`), of
stages of this library runs of equal stages stacked, as `problem.init` gives them.

Full batch, or minibatches drawn without replacement, a fresh permutation each epoch. With
minibatches the step's own gradient is an estimate, so the method never claims convergence by it:
it runs to its step limit, and the returned `stationarity` is the full problem's.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.results import RESULTS
from hjcontrol._ground.shown import Shown
from hjcontrol.control import ControlProblem, Free, Minibatch, minibatch, value_and_gradient
from hjcontrol.control.batches import check_batch_size
from hjcontrol.control.training import estimate, noise_of, refuse_noise, settled
from hjcontrol.control.units import Units, plain, resolved, stationarity
from hjcontrol.networks import Weights
from hjcontrol.solvers.by_layer import seen, unseen
from hjcontrol.solvers.solver import AbstractSolver, Ending, Info, Outcome, summed
from hjcontrol.solvers.spectral import Spectral, first, stepped


class GradientState(Shown):
    """Weights, the optimiser's own state, the last value and gradient, and the drawing."""

    weights: Weights
    optimiser: Any
    objective: Float[Array, ""]
    gradient: Weights
    size: Float[Array, ""]  # stationarity, of the batch
    num_steps: Int[Array, ""]
    num_evals: Int[Array, ""]
    batches: Minibatch | None
    noise: Any = None  # of a noisy model: its state and a key


DEFAULT = 1e-7  # tolerance; where the dtype is coarser, what it resolves


@admits(tol=">= 0", batch_size=">= 1")
class Gradient(AbstractSolver):
    """Gradient descent with an optax transformation, line searches included (`optax.lbfgs()`).

    - `optimiser`: any `optax.GradientTransformation`. One with a line search is replaced by spectral
      projected gradient steps where the problem has a control set.
    - `tol`: stop once `max |dH/dtheta| <= tol * unit` (full batch only).
    - `unit`: of `dJ/dtheta`; `hj.solve` measures it (see `control.units`). Steps are the transformation's
      own: `optax.sgd` is not the same for J and 1e-8 J, but it is not called done early either.
    - `batch_size`: samples a step; all of them without it. Needs `key=` in `solve`.

    **Example:**

        >>> import optax, hjcontrol as hj
        >>> hj.solvers.Gradient(optax.adam(1e-3), batch_size=64).batch_size
        64
    """

    optimiser: optax.GradientTransformation = eqx.field(static=True)
    tol: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=DEFAULT)
    batch_size: int | None = eqx.field(static=True, default=None)
    label: str = eqx.field(static=True, default="gradient")
    unit: Float[Array, ""] | float = 1.0
    given: bool = eqx.field(static=True, default=False)  # each step's batch comes from outside

    minibatch = True
    streams = True
    sums = True
    couples = True
    priced = True
    default_max_steps = 5000

    @property
    def name(self) -> str:
        return self.label

    @property
    def whole(self) -> bool:
        """Whether a step takes all samples."""
        return self.batch_size is None and not self.given

    def arriving(self) -> "Gradient":
        return dataclasses.replace(self, batch_size=None, given=True)

    def check(self, problem: ControlProblem) -> None:
        parts = not summed(problem, self)
        if problem.stream is None:
            check_batch_size(problem, self.batch_size, "Gradient")
        if not parts and self.whole:
            refuse_noise(problem, "Gradient with all samples a step")
        if parts and _spectral(self, problem):
            raise ValueError(
                "Gradient: a line search on a control set compares values of J, so it needs all samples; "
                f"found `batch_size` = {self.batch_size}. Use a transformation without line search, such "
                "as `optax.adam(1e-3)`."
            )

    def measuring(self, units: Units) -> "Gradient":
        tol = resolved(self.tol, DEFAULT, 0.5, units)
        return dataclasses.replace(self, tol=tol, unit=plain(units.gradient))

    def init(self, problem: ControlProblem, weights: Weights, key: Any) -> GradientState:
        # Every row of a history of minibatches is an estimate, the first one that of a first chunk.
        seen = problem if self.whole else problem.first_chunk
        value, gradient = value_and_gradient(seen, weights)
        return GradientState(
            weights,
            first(value, gradient) if _spectral(self, problem) else _begun(self, problem, weights),
            value,
            gradient,
            stationarity(problem, weights, gradient, self.unit),
            jnp.asarray(0),
            jnp.asarray(1),
            minibatch(problem, self.batch_size, key, "Gradient"),
            noise_of(problem, key, "Gradient"),
        )

    def step(self, problem: ControlProblem, state: GradientState) -> GradientState:
        return _step(self, problem, state)

    def info(self, state: GradientState) -> Info:
        return Info(state.objective, state.size, state.num_evals)

    def terminate(self, problem: ControlProblem, state: GradientState) -> Ending:
        del problem
        reached = state.size <= self.tol * self.unit
        return reached & self.whole, RESULTS.successful

    def settled(self, problem: ControlProblem, state: GradientState) -> ControlProblem:
        return settled(problem, state.noise)

    def postprocess(self, problem: ControlProblem, state: GradientState) -> Outcome:
        return Outcome(state.weights)


def _step(
    gradient_method: Gradient, problem: ControlProblem, state: GradientState
) -> GradientState:
    if isinstance(state.optimiser, Spectral):
        at = (state.weights, state.objective, state.gradient)
        memory, end, tries = stepped(problem, state.optimiser, at)
        size = stationarity(problem, end[0], end[2], gradient_method.unit)
        counts = (state.num_steps + 1, state.num_evals + tries)
        return GradientState(end[0], memory, end[1], end[2], size, *counts, state.batches)
    batch, batches, noise = problem, state.batches, state.noise
    value, gradient = state.objective, state.gradient
    if batches is not None and gradient_method.batch_size is not None:
        batch, batches = batches.draw(problem, gradient_method.batch_size)
    if not gradient_method.whole:
        # what was kept belongs to the previous batch
        value, gradient, noise = estimate(batch, state.weights, noise)
    view = lambda a: seen(gradient_method.optimiser, problem, a)
    old, slope = view(state.weights), view(gradient)
    change, optimiser = optax.with_extra_args_support(gradient_method.optimiser).update(
        slope,
        state.optimiser,
        old,
        value=value,
        grad=slope,
        # A search may hand over weights in 64 bits where these are switched on.
        value_fn=lambda w: batch.objective(
            unseen(jax.tree.map(lambda a, b: a.astype(b.dtype), w, old))
        ),
    )
    new = unseen(optax.apply_updates(old, change))
    weights = problem.control_set.project(new)
    if gradient_method.whole:
        value, gradient = _evaluate(gradient_method, problem, weights, optimiser)
    tries = _linesearch_steps(optimiser)
    return GradientState(
        weights,
        optimiser,
        value,
        gradient,
        stationarity(problem, weights, gradient, gradient_method.unit),
        state.num_steps + 1,
        state.num_evals + jnp.maximum(tries, 1),
        batches,
        noise,
    )


def _begun(gradient_method: Gradient, problem: ControlProblem, weights: Weights) -> Any:
    """The transformation's own state.

    **Raises:** `ValueError` where it takes no such weights.
    """
    try:
        return gradient_method.optimiser.init(seen(gradient_method.optimiser, problem, weights))
    except Exception as error:  # the user's transformation: whatever it raises
        raise ValueError(
            "Gradient: `optimiser` does not begin at these weights, which it sees as a list of each "
            "stage's (`problem.init(key)` stacked, of stages of this library). State masks and labels "
            f"as functions of the weights. It says: {type(error).__name__}: {str(error).splitlines()[0]}"
        ) from error


def _spectral(gradient_method: Gradient, problem: ControlProblem) -> bool:
    """Whether projected steps with a search of their own take the transformation's place."""
    return not isinstance(problem.control_set, Free) and _searches(gradient_method, problem)


def _searches(gradient_method: Gradient, problem: ControlProblem) -> bool:
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(lambda k: _begun(gradient_method, problem, problem.init(k)), key)
    names = {
        type(leaf).__name__
        for leaf in jax.tree.leaves(state, is_leaf=lambda s: "LinesearchState" in type(s).__name__)
    }
    return any("LinesearchState" in name for name in names)


def _evaluate(
    gradient_method: Gradient, problem: ControlProblem, weights: Weights, optimiser: Any
) -> tuple[Float[Array, ""], Weights]:
    """`J` and its gradient; a line search that ended at these weights has them already."""
    kept = [optax.tree_utils.tree_get_all_with_path(optimiser, name) for name in ("value", "grad")]
    if all(len(found) == 1 and found[0][1] is not None for found in kept):
        cost = lambda view: problem.objective(unseen(view))
        view = seen(gradient_method.optimiser, problem, weights)
        value, gradient = optax.value_and_grad_from_state(cost)(view, state=optimiser)
        return value, unseen(gradient)
    return value_and_gradient(problem, weights)


def _linesearch_steps(optimiser: Any) -> Int[Array, ""]:
    """Evaluations of a line search in the last step, of whatever transformation holds one."""
    found = optax.tree_utils.tree_get_all_with_path(optimiser, "num_linesearch_steps")
    return sum((jnp.asarray(steps) for _, steps in found), jnp.asarray(0))
