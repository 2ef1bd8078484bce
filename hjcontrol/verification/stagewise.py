r"""The Hamiltonian of every set of weights, as a function of these weights alone.

    H_k(theta) = r(theta) + sum_i [ l(x_k^i, theta)/n + p_{k+1}^i . F_k(x_k^i, theta) ]

States and costates held. Stages tied in time have one Hamiltonian, the sum of theirs. What is asked of it
is asked for all stages of a run in one scan.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from hjcontrol.control import ControlProblem, Trajectory, sample_hamiltonian
from hjcontrol.networks import Run, Weights

Hamiltonian = Callable[[PyTree], Float[Array, ""]]


def stagewise(
    problem: ControlProblem,
    weights: Weights,
    states: Trajectory,
    costates: Trajectory,
    ask: Callable[[Hamiltonian, PyTree, PyTree, Key[Array, ""], int], PyTree[Array]],
    key: Key[Array, ""],
    beside: Weights | None = None,
) -> tuple[PyTree[Array], ...]:
    """`ask(H_k, theta_k, beside_k, key_k, run)` for every set of weights; by run, `sets` in front.

    `beside`: anything else that is stacked like the weights.
    """
    p, by_run, given = costates.final, [], problem.given_by_depth
    for r in reversed(range(len(problem.chain.runs))):
        run, theta = problem.chain.runs[r], weights[r]
        also = None if beside is None else beside[r]
        xs, ps = (
            jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), t.runs[r]) for t in (states, costates)
        )
        key, sub = jax.random.split(key)

        def ahead(p_next: Any, stage: Any, theta: Any, u: Any, p: Any) -> tuple[Any, Any]:
            return p, p_next

        if run.tied:
            p, nexts = run.scan(ahead, p, theta, ps, reverse=True)
            own, other = jax.tree.map(lambda a: a[0], (theta, also))
            found = ask(_along(problem, run, xs, nexts, given[r]), own, other, sub, r)
            by_run.append(jax.tree.map(lambda a: jnp.asarray(a)[None], found))
            continue

        def body(p_next: Any, stage: Any, both: Any, u: Any, slices: Any) -> tuple[Any, Any]:
            (x, p, k, j), (th, other) = slices, both

            def value(c: PyTree) -> Float[Array, ""]:
                share = lambda a, q, u: sample_hamiltonian(problem, stage, a, q, c, u)
                own = jnp.sum(jax.vmap(share)(x, p_next, u)) + problem.weight_cost(c)
                if not problem.couples:
                    return own
                held = jax.tree.map(lambda a, b: a.at[j].set(b), theta, c)
                return own + problem.coupling(held)  # the neighbours stand still

            return p, ask(value, th, other, k, r)

        keys, places = jax.random.split(sub, run.length), jnp.arange(run.length)
        p, found = run.scan(body, p, (theta, also), (xs, ps, keys, places), given[r], reverse=True)
        by_run.append(found)
    return tuple(reversed(by_run))


def placed(
    problem: ControlProblem, by_run: tuple[Float[Array, " _sets"], ...], blank: float = 0.0
) -> Float[Array, " stages"]:
    """One number a stage: that of a tied run stands at its first, the others are `blank`."""
    rest = [jnp.full(run.length - run.sets, blank) for run in problem.chain.runs]
    pairs = zip(by_run, rest, strict=True)
    return jnp.concatenate([jnp.concatenate([a, b.astype(a.dtype)]) for a, b in pairs])


def _along(
    problem: ControlProblem, run: Run, xs: PyTree, nexts: PyTree, given: PyTree
) -> Hamiltonian:
    """The Hamiltonians of tied stages, summed: what their one set of weights can lower."""

    def value(c: PyTree) -> Float[Array, ""]:
        def body(total: Any, stage: Any, th: Any, u: Any, slices: Any) -> tuple[Any, None]:
            share = lambda a, q, u: sample_hamiltonian(problem, stage, a, q, th, u)
            return total + jnp.sum(jax.vmap(share)(slices[0], slices[1], u)), None

        start = jnp.zeros((), problem.dtype)
        one = jax.tree.map(lambda a: a[None], c)
        total, _ = run.scan(body, start, one, (xs, nexts), given)
        return total + problem.weight_cost(c)

    return value
