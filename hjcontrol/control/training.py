r"""The cost that a noisy model is trained on: dropout drawn, statistics those of the batch.

J(theta; state, key) = (1/n) sum_i Phi(out_i, y^i) + sum_k r(theta_k)
out, state' = model.train(inputs, state, key)
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from hjcontrol.control.ensemble import replaced
from hjcontrol.control.problem import ControlProblem
from hjcontrol.networks import Weights
from hjcontrol.networks.noisy import AbstractNoisy


def noise_of(problem: ControlProblem, key: Key[Array, ""] | None, who: str) -> Any:
    """What a noisy model carries from step to step, its state and a key; `None` for any other.

    **Raises:** `ValueError` without a key.
    """
    if not isinstance(problem.model, AbstractNoisy):
        return None
    if key is None:
        raise ValueError(
            f"{who}: {', '.join(problem.model.names)} needs `key=jax.random.key(seed)` in `solve`."
        )
    return problem.model.state, jax.random.fold_in(key, 1)


def estimate(
    problem: ControlProblem, weights: Weights, noise: Any
) -> tuple[Float[Array, ""], Weights, Any]:
    """`J` of a batch and its gradient, and the noise of the next step."""
    if noise is None:
        return *jax.value_and_grad(problem.objective)(weights), None
    state, key = noise
    key, draw = jax.random.split(key)

    def cost(w: Weights) -> tuple[Array, Any]:
        [theta] = problem.chain.unstack(w)
        module = eqx.combine(theta, problem.chain[0].rest)
        out, new = module.train(problem.inputs, state, draw)
        if state is not None:  # a layer may keep statistics in another precision than it computes
            new = [a.astype(old.dtype) for a, old in zip(new, state, strict=True)]
        each = jax.vmap(problem.terminal_cost)(out, problem.targets)
        return jnp.mean(each) + problem.total_weight_cost(w), new

    (value, state), gradient = jax.value_and_grad(cost, has_aux=True)(weights)
    return value, gradient, (state, key)


def settled(problem: ControlProblem, noise: Any) -> ControlProblem:
    """The problem with the statistics that a run ended with: what its model is in inference."""
    if noise is None or noise[0] is None:
        return problem
    state = noise[0]
    front = jax.tree.map(lambda a: jnp.asarray(a)[None], state)  # a run has its stages in front
    chain = eqx.tree_at(lambda c: c.runs[0].stage.rest.state, problem.chain, front)
    return replaced(
        problem, chain=chain, model=eqx.tree_at(lambda m: m.state, problem.model, state)
    )


def refuse_noise(problem: ControlProblem, who: str) -> None:
    """Refuse a model with layers that need a key or a state, outside of minibatches.

    **Raises:** `ValueError` naming the layers.
    """
    if isinstance(problem.model, AbstractNoisy):
        raise ValueError(
            f"{who}: {', '.join(problem.model.names)} is trained by minibatches only, "
            "`hj.Gradient(optimiser, batch_size=...)`: elsewhere J is a function of the weights alone. "
            f"{problem.model.remedy}"
        )
