r"""Successive approximations over weights of two or three values, which they never leave.

    m_k <- memory m_k + (1 - memory) dH_k/dtheta            H_k along present states and costates
    theta_k <- argmin over c in Theta of  m_k . (c - theta_k) + tau_k |c - theta_k|_1 + sparsity |c|_0
    tau_k = rho max |m_k|

H is replaced by its tangent in theta: exact where the stage is affine in its weights. The price `tau`
of a change is E-MSA's price of leaving the states, in the weights themselves: one changes only where the
tangent says a gain of more than `rho` times the largest of its array, so of two values it flips iff
`m theta > tau`. Zeros come from `sparsity` alone, the price of a weight that is not zero: `|m| > tau +
sparsity` calls one back. All of it is separable, so the minimiser is found by trying every value.

Full batch: changes are taken only if `J + sparsity |theta|_0` falls; else rho goes half the way to 1,
where one weight an array moves. It ends where none of these lowers J. Minibatches: rho is kept, every
change is taken, and the last weights are handed back.
Idea: Li & Hao, "An optimal control approach to deep learning and applications to discrete-weight neural
networks", ICML 2018; the rule above is derived here.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known_to_fail
from hjcontrol._ground.results import RESULTS
from hjcontrol._ground.shown import Shown
from hjcontrol.control import (
    Binary,
    ControlProblem,
    Minibatch,
    Ternary,
    minibatch,
    value_and_gradient,
)
from hjcontrol.control.batches import check_batch_size
from hjcontrol.networks import Weights
from hjcontrol.solvers.solver import AbstractSolver, Ending, Info, Outcome

PATIENCE = 20  # refusals in a row: rho is then within 1e-6 of 1


class DiscreteState(Shown):
    """Weights in the set, the averaged slope, and the gate."""

    weights: Weights
    objective: Float[Array, ""]
    gradient: Weights
    slope: Weights
    rho: Float[Array, ""]
    refused: Int[Array, ""]
    sweeps: Int[Array, ""]
    stationarity: Float[Array, ""]
    batches: Minibatch | None


@admits(rho=">= 0", memory=">= 0", sparsity=">= 0", batch_size=">= 1")
class DiscreteMSA(AbstractSolver):
    """For problems whose control set is `Binary()` or `Ternary()`. Start it from random signs.

    - `rho`: gate, between 0 (every weight goes where its slope says) and 1 (none moves).
    - `memory`: of the averaged slope, between 0 and 1.
    - `sparsity`: price of a weight that is not zero, in the units of J (ternary only).
    - `batch_size`: samples a sweep; all of them without it. Needs `key=` in `solve`.
    """

    rho: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=0.5)
    memory: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=0.9)
    sparsity: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=0.0)
    batch_size: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        for name in ("rho", "memory"):
            value = getattr(self, name)
            if known_to_fail((value >= 0) & (value < 1)):
                raise ValueError(f"DiscreteMSA: `{name}` must lie in [0, 1); found {float(value)}.")
        if known_to_fail(self.sparsity >= 0):
            raise ValueError(f"DiscreteMSA: `sparsity` must be >= 0; found {float(self.sparsity)}.")

    sets = "any"
    minibatch = True

    @property
    def name(self) -> str:
        return "discrete-msa"

    def check(self, problem: ControlProblem) -> None:
        if not isinstance(problem.control_set, Binary | Ternary):
            raise ValueError(
                "DiscreteMSA: the control set must be `Binary()` or `Ternary()`; found "
                f"{type(problem.control_set).__name__}. Use `ExtendedMSA`."
            )
        check_batch_size(problem, self.batch_size, "DiscreteMSA")

    def init(self, problem: ControlProblem, weights: Weights, key: Any) -> DiscreteState:
        weights = problem.control_set.project(weights)
        value, gradient = value_and_gradient(problem, weights)
        size = problem.control_set.stationarity(weights, gradient)
        batches = minibatch(problem, self.batch_size, key, "DiscreteMSA")
        rho, zero = self.rho.astype(value.dtype), jnp.asarray(0)
        return DiscreteState(weights, value, gradient, gradient, rho, zero, zero, size, batches)

    def step(self, problem: ControlProblem, state: DiscreteState) -> DiscreteState:
        return _step(self, problem, state)

    def info(self, state: DiscreteState) -> Info:
        return Info(state.objective, state.stationarity, state.sweeps + 1)

    def terminate(self, problem: ControlProblem, state: DiscreteState) -> Ending:
        return (state.refused >= PATIENCE) & (self.batch_size is None), RESULTS.successful

    def postprocess(self, problem: ControlProblem, state: DiscreteState) -> Outcome:
        return Outcome(state.weights)


def _step(msa: DiscreteMSA, problem: ControlProblem, state: DiscreteState) -> DiscreteState:
    theta_set, batches = problem.control_set, state.batches
    value, gradient, rho = state.objective, state.gradient, state.rho
    if batches is not None and msa.batch_size is not None:
        problem, batches = batches.draw(problem, msa.batch_size)
        value, gradient = value_and_gradient(problem, state.weights)
    fade = lambda m, g: (msa.memory * m + (1 - msa.memory) * g).astype(g.dtype)
    # After a refusal the weights are the same, and their own slope is what counts.
    slope = jax.tree.map(
        lambda m, g: jnp.where(state.refused > 0, g, fade(m, g)), state.slope, gradient
    )
    weights = jax.tree.map(lambda t, m: _least(msa, theta_set, t, m, rho), state.weights, slope)
    refused = state.refused
    if batches is None:
        new_value, new_gradient = value_and_gradient(problem, weights)
        paid = lambda w: msa.sparsity * sum(jnp.sum(a != 0) for a in jax.tree.leaves(w))
        accept = new_value + paid(weights) < value + paid(state.weights)
        take = lambda a, b: jax.tree.map(lambda u, v: jnp.where(accept, u, v), a, b)
        weights, value, gradient = take(
            (weights, new_value, new_gradient), (state.weights, value, gradient)
        )
        opened = jnp.maximum(msa.rho, 1 - 2 * (1 - rho))
        rho = jnp.where(accept, opened, 0.5 * (1 + rho)).astype(rho.dtype)
        refused = jnp.where(accept, 0, refused + 1)
    size = theta_set.stationarity(weights, gradient)
    return DiscreteState(
        weights, value, gradient, slope, rho, refused, state.sweeps + 1, size, batches
    )


def _least(msa: DiscreteMSA, theta_set: Any, theta: Array, slope: Array, rho: Array) -> Array:
    """The value of least cost for each weight of one array, stages in front."""
    tau = rho * jnp.max(jnp.abs(slope), axis=tuple(range(1, slope.ndim)), keepdims=True)
    best, least = theta, jnp.zeros_like(slope)
    for value in (-1.0, 1.0) if isinstance(theta_set, Binary) else (-1.0, 0.0, 1.0):
        move = value - theta
        zeros = msa.sparsity * ((value != 0) - (theta != 0).astype(theta.dtype))
        cost = (slope * move + tau * jnp.abs(move) + zeros).astype(theta.dtype)
        best = jnp.where(cost < least, value, best).astype(theta.dtype)
        least = jnp.minimum(cost, least)
    return best
